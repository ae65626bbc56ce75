/* Libraries that are loaded and closed at run time, and two copies of ours in one process. The one of
 * tests/c/beside is ours beside libextism 1.41. */
#define _GNU_SOURCE
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "child.h"
#include "loaded.h"

static void add_one(ExtismCurrentPlugin *plugin, const ExtismVal *inputs, ExtismSize n_inputs,
                    ExtismVal *outputs, ExtismSize n_outputs, void *data) {
  (void)plugin, (void)n_inputs, (void)n_outputs, (void)data;
  outputs[0].v.i64 = inputs[0].v.i64 + 1;
}

static const char *ours(void) {
  const char *path = getenv("EXTISM_LIB");
  if (!path) printf("  EXTISM_LIB is not set\n");
  return path;
}

static bool use(struct library *library) {
  ExtismPlugin *plugin = loaded_plugin(library, add_one, NULL);
  CHECK(works(library, plugin));
  library->free(plugin);
  return true;
}

static bool test_loading_again_and_again(void) {
  for (int i = 0; i < 20; i++) {
    struct library library;
    CHECK(ours() && load(&library, ours()));
    CHECK(use(&library));
    CHECK(dlclose(library.handle) == 0);
  }
  return true;
}

/* After dlclose: a fault elsewhere finds the handlers of signals that it needs, timeouts their
 * thread, and threads that end the destructors of their data. */
static struct library closed;
static sigjmp_buf back;

static void jump_back(int signal) {
  (void)signal;
  siglongjmp(back, 1);
}

static bool fault(void) {
  if (sigsetjmp(back, 1) != 0) return true;
  volatile int *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  *page = 1;
  return false;
}

static void *use_and_close(void *unused) {
  NOTE(use(&closed));
  NOTE(dlclose(closed.handle) == 0);
  return unused;
}

static bool test_faults_elsewhere_after_closing(void) {
  signal(SIGSEGV, jump_back);
  signal(SIGILL, jump_back);
  CHECK(ours() && load(&closed, ours()));
  ExtismPlugin *plugin = loaded_plugin(&closed, add_one, NULL);
  CHECK(works(&closed, plugin));
  CHECK(dlclose(closed.handle) == 0);
  CHECK(fault());
  if (sigsetjmp(back, 1) == 0) {
    raise(SIGILL);
    CHECK(false);
  }
  CHECK(works(&closed, plugin)); /* the functions are still where they were */
  CHECK(fault());
  return true;
}

static bool test_closing_in_a_thread_that_ends(void) {
  signal(SIGSEGV, jump_back);
  for (int i = 0; i < 5; i++) {
    pthread_t thread;
    CHECK(ours() && load(&closed, ours()));
    CHECK(pthread_create(&thread, NULL, use_and_close, NULL) == 0);
    pthread_join(thread, NULL);
    CHECK(load(&closed, ours()) && dlclose(closed.handle) == 0);
    CHECK(fault());
    check_sleep(20); /* the watchdog wakes up */
    fflush(NULL);
    pid_t child = fork(); /* the handlers of fork are still there, too */
    if (child == 0) _exit(load(&closed, ours()) && use(&closed) ? 0 : 1);
    CHECK_INT(outcome_of(child), 0);
  }
  return true;
}

/* Closed in its own host function. */
static void close_here(ExtismCurrentPlugin *plugin, const ExtismVal *inputs, ExtismSize n_inputs,
                       ExtismVal *outputs, ExtismSize n_outputs, void *data) {
  if (closed.handle) NOTE(dlclose(closed.handle) == 0);
  closed.handle = NULL;
  add_one(plugin, inputs, n_inputs, outputs, n_outputs, data);
}

static bool test_closing_in_a_host_function(void) {
  CHECK(ours() && load(&closed, ours()));
  CHECK(works(&closed, loaded_plugin(&closed, close_here, NULL)));
  return true;
}

/* A second copy of the library: its own handles, handlers and threads. */
#define COPY "second-libextism.so"

static bool copy(const char *from) {
  char buffer[1 << 16], path[PATH_MAX];
  FILE *in = fopen(from, "rb"), *out = fopen(COPY, "wb");
  CHECK(in && out && realpath(COPY, path));
  size_t n;
  while ((n = fread(buffer, 1, sizeof buffer, in)) > 0) CHECK(fwrite(buffer, 1, n, out) == n);
  CHECK(fclose(in) == 0 && fclose(out) == 0);
  return true;
}

static struct library one, two;
static ExtismPlugin *of_one, *of_two;

/* A host function of the first that calls a plug-in of the second, with its traps. */
static void call_two(ExtismCurrentPlugin *plugin, const ExtismVal *inputs, ExtismSize n_inputs,
                     ExtismVal *outputs, ExtismSize n_outputs, void *data) {
  NOTE(works(&two, of_two));
  add_one(plugin, inputs, n_inputs, outputs, n_outputs, data);
}

static void *call_in_thread(void *library) {
  ExtismPlugin *plugin = library == &one ? of_one : of_two;
  for (int i = 0; i < 20; i++) NOTE(works(library, plugin));
  return NULL;
}

static bool load_two(void) {
  CHECK(ours() && copy(ours()));
  CHECK(load(&one, ours()) && load(&two, "./" COPY));
  CHECK(one.call != two.call);
  of_one = loaded_plugin(&one, call_two, NULL);
  of_two = loaded_plugin(&two, add_one, NULL);
  return of_one && of_two;
}

static bool test_two_copies(void) {
  CHECK(load_two());
  CHECK(works(&one, of_one));
  CHECK(works(&two, of_two));
  CHECK(works(&one, of_one));
  /* A handle of the other copy is none, or one of another plug-in: never a crash. */
  one.call(of_two, "trap", NULL, 0);
  one.free(of_one);
  two.free(of_two);
  return true;
}

static bool test_two_copies_in_threads(void) {
  CHECK(load_two());
  one.free(of_one);
  of_one = loaded_plugin(&one, add_one, NULL);
  pthread_t threads[2];
  CHECK(pthread_create(&threads[0], NULL, call_in_thread, &one) == 0);
  CHECK(pthread_create(&threads[1], NULL, call_in_thread, &two) == 0);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  return true;
}

static int use_both(void) { return works(&one, of_one) && works(&two, of_two) ? 0 : 1; }

static bool test_two_copies_and_fork(void) {
  CHECK(load_two());
  CHECK(use_both() == 0);
  for (int i = 0; i < 3; i++) IN_CHILD(use_both() + !(use(&one) && use(&two)));
  CHECK(use_both() == 0);
  return true;
}

static bool test_closing_one_copy(void) {
  CHECK(load_two());
  CHECK(use_both() == 0);
  two.free(of_two);
  CHECK(dlclose(two.handle) == 0);
  one.free(of_one);
  of_one = loaded_plugin(&one, add_one, NULL);
  CHECK(works(&one, of_one));
  CHECK(load(&two, "./" COPY) && use(&two));
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_loading_again_and_again);
  RUN(test_faults_elsewhere_after_closing);
  RUN(test_closing_in_a_thread_that_ends);
  RUN(test_closing_in_a_host_function);
  RUN(test_two_copies);
  RUN(test_two_copies_in_threads);
  RUN(test_two_copies_and_fork);
  RUN(test_closing_one_copy);
  return check_end();
}
