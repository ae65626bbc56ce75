/* This library and libextism 1.41 in one process: each with its own handles, handlers of signals and
 * threads, and traps of one inside of host functions of the other. EXTISM_REFERENCE is 1.41. */
#define _GNU_SOURCE
#include <pthread.h>

#include "child.h"
#include "loaded.h"

static struct library ours, theirs;

static void add_one(ExtismCurrentPlugin *plugin, const ExtismVal *inputs, ExtismSize n_inputs,
                    ExtismVal *outputs, ExtismSize n_outputs, void *data) {
  (void)plugin, (void)n_inputs, (void)n_outputs, (void)data;
  outputs[0].v.i64 = inputs[0].v.i64 + 1;
}

/* What 1.41 says about a trap is another text. */
static bool theirs_works(ExtismPlugin *plugin) {
  CHECK(plugin != NULL);
  for (int i = 0; i < 3; i++) {
    CHECK_INT(theirs.call(plugin, "ask", NULL, 0), 42);
    CHECK(theirs.call(plugin, "trap", NULL, 0) != 0);
    CHECK(theirs.error(plugin) != NULL);
    CHECK(theirs.call(plugin, "deep", NULL, 0) != 0);
  }
  CHECK(theirs.call(plugin, "spin", NULL, 0) != 0);
  CHECK_TEXT(theirs.error(plugin), "timeout");
  return true;
}

static bool use(struct library *library) {
  ExtismPlugin *plugin = loaded_plugin(library, add_one, NULL);
  CHECK(library == &ours ? works(&ours, plugin) : theirs_works(plugin));
  library->free(plugin);
  return true;
}

/* A host function of one that uses the other. */
static void use_other(ExtismCurrentPlugin *plugin, const ExtismVal *inputs, ExtismSize n_inputs,
                      ExtismVal *outputs, ExtismSize n_outputs, void *data) {
  NOTE(use(data));
  add_one(plugin, inputs, n_inputs, outputs, n_outputs, NULL);
}

static void *use_in_thread(void *library) {
  for (int i = 0; i < 5; i++) NOTE(use(library));
  return NULL;
}

static bool use_both(void) {
  for (int i = 0; i < 2; i++) CHECK(use(&ours) && use(&theirs));
  ExtismPlugin *of_ours = loaded_plugin(&ours, use_other, &theirs);
  CHECK_INT(ours.call(of_ours, "ask", NULL, 0), 42);
  CHECK(ours.call(of_ours, "trap", NULL, 0) == 134);
  ours.free(of_ours);
  ExtismPlugin *of_theirs = loaded_plugin(&theirs, use_other, &ours);
  CHECK_INT(theirs.call(of_theirs, "ask", NULL, 0), 42);
  CHECK(theirs.call(of_theirs, "trap", NULL, 0) != 0);
  theirs.free(of_theirs);
  pthread_t threads[4];
  for (int i = 0; i < 4; i++)
    CHECK(!pthread_create(&threads[i], NULL, use_in_thread, i % 2 ? &ours : &theirs));
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  return true;
}

static bool load_ours(void) { return load(&ours, getenv("EXTISM_LIB")); }
static bool load_theirs(void) { return load(&theirs, getenv("EXTISM_REFERENCE")); }

static bool test_ours_first(void) {
  CHECK(load_ours() && use(&ours));
  CHECK(load_theirs() && use(&theirs));
  return use_both();
}

static bool test_theirs_first(void) {
  CHECK(load_theirs() && use(&theirs));
  CHECK(load_ours() && use(&ours));
  return use_both();
}

static bool test_both_loaded_before_any_use(void) {
  CHECK(load_theirs() && load_ours());
  CHECK(ours.call != theirs.call);
  return use_both();
}

/* 1.41 does not survive a fork; beside it, ours does. */
static bool test_fork_beside_theirs(void) {
  CHECK(load_theirs() && use(&theirs));
  CHECK(load_ours() && use(&ours));
  for (int i = 0; i < 3; i++) IN_CHILD(use(&ours) ? 0 : 1);
  return use_both();
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_ours_first);
  RUN(test_theirs_first);
  RUN(test_both_loaded_before_any_use);
  RUN(test_fork_beside_theirs);
  return check_end();
}
