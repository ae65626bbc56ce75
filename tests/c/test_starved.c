/* A system that gives no threads, no descriptors, no address space: what needs them fails with an error,
 * everything else works, and all works again when there is some. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <extism.h>

#include "guest.h"

/* In place of the C library's, for this program and for the libraries that it loads. */
static atomic_bool no_threads;
static atomic_int refused;

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                   void *argument) {
  static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
  if (!no_threads) return real(thread, attributes, body, argument);
  refused++;
  return EAGAIN;
}

/* Threads of the library of this name that are alive. */
static int alive(const char *name) {
  int count = 0;
  DIR *tasks = opendir("/proc/self/task");
  for (struct dirent *task; tasks && (task = readdir(tasks));) {
    char path[300], comm[32] = "";
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
    FILE *file = fopen(path, "r");
    if (file && fgets(comm, sizeof comm, file) && strncmp(comm, name, strlen(name)) == 0) count++;
    if (file) fclose(file);
  }
  if (tasks) closedir(tasks);
  return count;
}

/* As slow as that of a thread that is interrupted. glibc looks at the other thread to the last. */
static atomic_int detached_alive = -1;

int pthread_detach(pthread_t thread) {
  static int (*real)(pthread_t);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_detach");
  int result = real(thread);
  if (detached_alive >= 0) {
    check_sleep(100);
    detached_alive += alive("extism-http");
  }
  return result;
}

CALLBACK(nothing) { UNUSED; }

#define WAT_AND(MORE)                                                                    \
  GUEST(USER("f", "") ENV("http_request", "(param i64 i64) (result i64)"),               \
        DATA("output!") FUNC("run", "(call $f)" OUTPUT(7)) FUNC("trap", "unreachable")   \
        FUNC("spin", "(loop $l (br $l))") "(func $deep (export \"deep\") (call $deep))"  \
        FUNC("get", "(drop (call $http_request (call $input_offset) (i64.const 0)))") MORE)

static ExtismPlugin *plugin_of(const char *wat, const char *fields) {
  char text[MANIFEST_SIZE];
  manifest(text, wat, fields);
  ExtismFunction *function = extism_function_new("f", NULL, 0, NULL, 0, nothing, NULL, NULL);
  const ExtismFunction *functions[] = {function};
  ExtismPlugin *plugin = plugin_with(text, functions, 1);
  extism_function_free(function);
  return plugin;
}

static ExtismPlugin *new_plugin(const char *fields) {
  return plugin_of(WAT_AND(""), fields);
}

/* Another module, which was not compiled before. */
static ExtismPlugin *other_plugin(void) {
  return plugin_of(WAT_AND(FUNC("other", "")), "");
}

static bool works(ExtismPlugin *plugin) {
  CHECK_INT(call(plugin, "run"), 0);
  CHECK(output_is(plugin, "output!"));
  CHECK_INT(call(plugin, "trap"), 134);
  CHECK_INT(call(plugin, "deep"), 134);
  return true;
}

static bool times_out(ExtismPlugin *plugin) {
  CHECK_INT(call(plugin, "spin"), 134);
  CHECK_TEXT(extism_plugin_error(plugin), "timeout");
  return true;
}

/* The first large module is hashed by a thread, or without one. */
static bool test_large_module_without_threads(void) {
  no_threads = true;
  refused = 0;
  ExtismPlugin *plugin = plugin_padded();
  no_threads = false;
  CHECK(plugin && refused > 0);
  CHECK_INT(call(plugin, "run"), -1);
  CHECK_CONTAINS(extism_plugin_error(plugin), "run");
  extism_plugin_free(plugin);
  return true;
}

/* Compiling wants threads, and does without. */
static bool test_creation_without_threads(void) {
  no_threads = true;
  for (int i = 0; i < 3; i++) {
    ExtismPlugin *plugin = new_plugin("");
    CHECK(plugin != NULL);
    CHECK(works(plugin));
    extism_plugin_free(plugin);
  }
  no_threads = false;
  ExtismPlugin *plugin = new_plugin("\"timeout_ms\": 20");
  CHECK(plugin && works(plugin) && times_out(plugin));
  extism_plugin_free(plugin);
  return true;
}

/* A deadline needs a thread that watches over it: without it the call does not begin. */
static bool test_deadlines_without_threads(void) {
  ExtismPlugin *plugin = new_plugin("\"timeout_ms\": 50"), *free_of_time = new_plugin("");
  CHECK(plugin && free_of_time);
  no_threads = true;
  refused = 0;
  for (int i = 0; i < 3; i++) {
    CHECK_INT(call(plugin, "run"), -1);
    CHECK_CONTAINS(extism_plugin_error(plugin), "thread");
    CHECK(works(free_of_time));
  }
  CHECK(refused > 0);
  CHECK(extism_plugin_cancel(extism_plugin_cancel_handle(plugin)));
  no_threads = false;
  CHECK(times_out(plugin));
  CHECK(works(plugin));
  extism_plugin_free(plugin);
  extism_plugin_free(free_of_time);
  return true;
}

static bool test_requests_without_threads(void) {
  static const char request[] = "{\"url\": \"http://127.0.0.1:1/\"}";
  ExtismPlugin *plugin = new_plugin("\"allowed_hosts\": [\"127.0.0.1\"]");
  CHECK(plugin && works(plugin));
  no_threads = true;
  refused = 0;
  CHECK_INT(call_text(plugin, "get", request), -1);
  CHECK_CONTAINS(extism_plugin_error(plugin), "thread");
  CHECK(refused > 0 && works(plugin));
  no_threads = false;
  CHECK_INT(call_text(plugin, "get", request), -1);
  CHECK_CONTAINS(extism_plugin_error(plugin), "127.0.0.1:1");
  extism_plugin_free(plugin);
  return true;
}

/* A thread that ends at once does not end before it is detached: its stack goes with it. */
static bool test_threads_do_not_end_too_early(void) {
  static const char request[] = "{\"url\": \"http://127.0.0.1:1/\"}";
  ExtismPlugin *plugin = new_plugin("\"allowed_hosts\": [\"127.0.0.1\"]");
  detached_alive = 0;
  for (int i = 1; i <= 3; i++) {
    CHECK_INT(call_text(plugin, "get", request), -1);
    CHECK_CONTAINS(extism_plugin_error(plugin), "127.0.0.1:1");
    CHECK_INT(detached_alive, i);
    while (alive("extism-http") > 0) check_sleep(1);
  }
  detached_alive = -1;
  extism_plugin_free(plugin);
  return true;
}

/* With too little stack a guest needs a thread. */
static void *call_on_short_stack(void *plugin) {
  no_threads = true;
  NOTE(call(plugin, "run") == -1);
  const char *error = extism_plugin_error(plugin);
  NOTE(error && strstr(error, "little stack"));
  char *errmsg = NULL;
  NOTE(!extism_plugin_new((const uint8_t *)"(module)", 8, NULL, 0, false, &errmsg) && errmsg);
  extism_plugin_new_error_free(errmsg);
  no_threads = false;
  NOTE(works(plugin));
  return NULL;
}

static bool test_short_stacks_without_threads(void) {
  ExtismPlugin *plugin = new_plugin("");
  CHECK(plugin && works(plugin));
  pthread_t thread;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 128 * 1024);
  CHECK(pthread_create(&thread, &attributes, call_on_short_stack, plugin) == 0);
  pthread_join(thread, NULL);
  pthread_attr_destroy(&attributes);
  CHECK(works(plugin));
  extism_plugin_free(plugin);
  return true;
}

static bool limit(int resource, rlim_t soft) {
  struct rlimit limits;
  CHECK(getrlimit(resource, &limits) == 0);
  limits.rlim_cur = soft < limits.rlim_max ? soft : limits.rlim_max;
  CHECK(setrlimit(resource, &limits) == 0);
  return true;
}

static bool test_without_descriptors(void) {
  char file[] = "starved-XXXXXX", text[MANIFEST_SIZE];
  int descriptor = mkstemp(file);
  CHECK(write(descriptor, "(module)", 8) == 8 && close(descriptor) == 0);
  snprintf(text, sizeof text, "{\"wasm\": [{\"path\": \"%s\"}]}", file);
  ExtismPlugin *before = new_plugin("\"timeout_ms\": 20");
  CHECK(before && works(before));

  int highest = dup(0);
  close(highest);
  CHECK(limit(RLIMIT_NOFILE, (rlim_t)highest));
  char *errmsg = NULL;
  CHECK(!extism_plugin_new((const uint8_t *)text, strlen(text), NULL, 0, false, &errmsg));
  CHECK_CONTAINS(errmsg, "open files");
  extism_plugin_new_error_free(errmsg);
  CHECK(other_plugin() == NULL); /* the image of its data is a file, too */
  CHECK(works(before) && times_out(before));
  CHECK(limit(RLIMIT_NOFILE, RLIM_INFINITY));
  ExtismPlugin *from_file = plugin_from(text), *after = other_plugin();
  CHECK(from_file && after && works(after));
  extism_plugin_free(from_file);
  extism_plugin_free(after);
  extism_plugin_free(before);
  remove(file);
  return true;
}

/* Each memory of an instance reserves 4 GiB of addresses. Those of the pool are there already; a module with a start
 * function does not come from the pool. */
static bool test_without_address_space(void) {
  ExtismPlugin *before = new_plugin("");
  CHECK(before && works(before));
  struct rlimit old;
  getrlimit(RLIMIT_AS, &old);
  unsigned long pages = 0;
  FILE *statm = fopen("/proc/self/statm", "r");
  CHECK(statm && fscanf(statm, "%lu", &pages) == 1 && fclose(statm) == 0);
  CHECK(limit(RLIMIT_AS, (rlim_t)pages * 4096 + (1u << 30)));
  ExtismPlugin *plugin = plugin_of(WAT_AND("(func $s) (start $s)"), "");
  CHECK(plugin != NULL); /* creation instantiates nothing */
  ExtismPlugin *pooled = new_plugin("");
  CHECK(pooled && works(pooled));
  extism_plugin_free(pooled);
  for (int i = 0; i < 3; i++) {
    CHECK_INT(call(plugin, "run"), -1);
    CHECK(extism_plugin_error(plugin) != NULL);
    CHECK(works(before));
  }
  CHECK(limit(RLIMIT_AS, old.rlim_cur));
  CHECK(works(plugin));
  extism_plugin_free(plugin);
  extism_plugin_free(before);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_large_module_without_threads);
  RUN(test_creation_without_threads);
  RUN(test_deadlines_without_threads);
  RUN(test_requests_without_threads);
  RUN(test_threads_do_not_end_too_early);
  RUN(test_short_stacks_without_threads);
  RUN(test_without_descriptors);
  RUN(test_without_address_space);
  return check_end();
}
