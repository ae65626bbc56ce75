/* fork: the child uses the library as its parent did, whatever other threads were doing. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <extism.h>

#include "child.h"
#include "guest.h"

CALLBACK(add_one) {
  UNUSED;
  outputs[0].v.i64 = inputs[0].v.i64 + 1;
}

#define WASI(NAME, TYPE) \
  "(import \"wasi_snapshot_preview1\" \"" NAME "\" (func $" NAME " " TYPE "))"
#define BODY                                                                               \
  DATA("hello") FUNC("hello", OUTPUT(5)) FUNC("spin", "(loop $l (br $l))")                 \
  FUNC("trap", "unreachable")                                                              \
  FUNC("log", "(call $log_error " BLOCK(0, 5) ")")                                         \
  FUNC_I32("random", "(call $random_get (i32.const 100) (i32.const 8))")                   \
  FUNC_I32("nap", "(i64.store (i32.const 224) (i64.const 1000000))"                        \
                  "(call $poll_oneoff (i32.const 200) (i32.const 300) (i32.const 1) (i32.const 400))") \
  FUNC_I32("ask", "(i32.wrap_i64 (call $add_one (i64.const 41)))")
#define WAT                                                                                \
  GUEST(USER("add_one", "(param i64) (result i64)") ENV("log_error", "(param i64)")        \
            WASI("random_get", "(param i32 i32) (result i32)")                             \
            WASI("poll_oneoff", "(param i32 i32 i32 i32) (result i32)"),                   \
        BODY)

static ExtismFunction *new_function(void) {
  ExtismValType type = ExtismValType_I64;
  return extism_function_new("add_one", &type, 1, &type, 1, add_one, NULL, NULL);
}

static ExtismPlugin *new_plugin(int32_t timeout_ms) {
  char text[MANIFEST_SIZE], field[64];
  snprintf(field, sizeof field, "\"timeout_ms\": %d", timeout_ms);
  manifest(text, WAT, field);
  const ExtismFunction *function = new_function();
  ExtismPlugin *plugin = plugin_with(text, &function, 1);
  extism_function_free((ExtismFunction *)function);
  return plugin;
}

/* All that a plug-in can do, with one that is there already. */
static int use(ExtismPlugin *plugin) {
  REQUIRE(call(plugin, "hello") == 0);
  REQUIRE(extism_plugin_output_length(plugin) == 5);
  REQUIRE(memcmp(extism_plugin_output_data(plugin), "hello", 5) == 0);
  REQUIRE(call(plugin, "ask") == 42);
  REQUIRE(call(plugin, "trap") == 134);
  REQUIRE(call(plugin, "random") == 0);
  REQUIRE(call(plugin, "nap") == 0);
  REQUIRE(call(plugin, "log") == 0);
  REQUIRE(call(plugin, "spin") == 134);
  REQUIRE(strcmp(extism_plugin_error(plugin), "timeout") == 0);
  REQUIRE(extism_plugin_config(plugin, (const uint8_t *)"{\"a\":\"b\"}", 9));
  REQUIRE(extism_plugin_reset(plugin));
  return 0;
}

/* All that a process can do: compile, make, use, free. */
static int work(void) {
  ExtismPlugin *plugin = new_plugin(200);
  REQUIRE(plugin);
  if (use(plugin) != 0) return 1;
  extism_plugin_free(plugin);
  REQUIRE(call(plugin, "hello") == -1);
  return 0;
}

/* Each child has engines of its own, the first of which starts beside a thread that hashes. */
static int load_large(void) {
  ExtismPlugin *plugin = plugin_padded();
  REQUIRE(plugin && call(plugin, "run") == -1);
  extism_plugin_free(plugin);
  return work();
}

static bool test_large_module(void) {
  IN_CHILD(load_large());
  CHECK(load_large() == 0);
  IN_CHILD(load_large());
  return true;
}

static bool test_before_use(void) {
  IN_CHILD(work());
  CHECK(work() == 0);
  return true;
}

static bool test_after_use(void) {
  ExtismPlugin *plugin = new_plugin(200);
  CHECK(plugin && use(plugin) == 0);
  for (int i = 0; i < 5; i++) {
    IN_CHILD(work());
    IN_CHILD(use(plugin));
  }
  CHECK(use(plugin) == 0);
  extism_plugin_free(plugin);
  return true;
}

static int fork_again(ExtismPlugin *plugin) {
  REQUIRE(use(plugin) == 0);
  pid_t child = fork();
  if (child == 0) _exit(use(plugin) != 0 || work() != 0);
  REQUIRE(outcome_of(child) == 0);
  return use(plugin);
}

static bool test_grandchildren(void) {
  ExtismPlugin *plugin = new_plugin(200);
  IN_CHILD(fork_again(plugin));
  extism_plugin_free(plugin);
  return true;
}

/* HTTP: a server of one answer, in a thread. */
static int listener;

static void *answer(void *unused) {
  (void)unused;
  int client = accept(listener, NULL, NULL);
  char request[1024];
  const char *response = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok";
  bool done = read(client, request, sizeof request) > 0 &&
              write(client, response, strlen(response)) == (ssize_t)strlen(response);
  close(client);
  return done ? &listener : NULL;
}

static int request(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  listener = socket(AF_INET, SOCK_STREAM, 0);
  REQUIRE(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 1) == 0);
  REQUIRE(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
  pthread_t server;
  REQUIRE(pthread_create(&server, NULL, answer, NULL) == 0);
  char json[64], wat[8192], text[MANIFEST_SIZE];
  int n = snprintf(json, sizeof json, "{\\\"url\\\": \\\"http://127.0.0.1:%d/\\\"}",
                   ntohs(address.sin_port));
  snprintf(wat, sizeof wat,
           GUEST(ENV("http_request", "(param i64 i64) (result i64)")
                     ENV("http_status_code", "(result i32)"),
                 DATA("%s") FUNC_I32("get", "(drop (call $http_request (call $block (i32.const 0) (i32.const %d)) (i64.const 0)))"
                                            "(call $http_status_code)")),
           json, n - 4);
  manifest(text, wat, "\"allowed_hosts\": [\"127.0.0.1\"], \"timeout_ms\": 10000");
  ExtismPlugin *plugin = plugin_with(text, NULL, 0);
  REQUIRE(plugin);
  REQUIRE(call(plugin, "get") == 201);
  extism_plugin_free(plugin);
  pthread_join(server, NULL);
  close(listener);
  return 0;
}

static bool test_http(void) {
  CHECK(request() == 0);
  IN_CHILD(request());
  CHECK(request() == 0);
  return true;
}

/* The process's log goes on in the child; its lines are whole. */
static bool test_logging(void) {
  char path[] = "/tmp/extism-fork-XXXXXX";
  int file = mkstemp(path);
  CHECK(extism_log_file(path, "error"));
  ExtismPlugin *plugin = new_plugin(200);
  CHECK(call(plugin, "log") == 0);
  IN_CHILD(call(plugin, "log"));
  CHECK(call(plugin, "log") == 0);
  char text[1024] = "";
  CHECK(read(file, text, sizeof text - 1) > 0);
  int lines = 0;
  for (char *at = text; (at = strstr(at, "ERROR extism::pdk: hello plugin=")); at++) lines++;
  CHECK_INT(lines, 3);
  extism_plugin_free(plugin);
  close(file);
  unlink(path);
  return true;
}

/* Another thread is inside of a call, for ever. */
static void *spin(void *plugin) {
  call(plugin, "spin");
  return NULL;
}

static int use_beside_busy(ExtismPlugin *busy) {
  ExtismCancelHandle *cancel = (ExtismCancelHandle *)extism_plugin_cancel_handle(busy);
  REQUIRE(call(busy, "hello") == -1);
  REQUIRE(strstr(extism_plugin_error(busy), "busy"));
  REQUIRE(!extism_plugin_reset(busy));
  REQUIRE(extism_plugin_output_length(busy) == 0);
  REQUIRE(extism_plugin_function_exists(busy, "hello"));
  REQUIRE(extism_plugin_cancel(cancel));
  REQUIRE(call(busy, "hello") == -1);
  extism_plugin_free(busy);
  REQUIRE(call(busy, "hello") == -1);
  return work();
}

static bool test_during_a_call_of_another_thread(void) {
  for (int32_t timeout = 60; timeout <= 60 * 1000; timeout *= 1000) {
    ExtismPlugin *busy = new_plugin(timeout);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, spin, busy) == 0);
    nanosleep(&(struct timespec){.tv_nsec = 30 * 1000 * 1000}, NULL);
    IN_CHILD(use_beside_busy(busy));
    extism_plugin_cancel(extism_plugin_cancel_handle(busy));
    pthread_join(thread, NULL);
    CHECK(call(busy, "hello") == 0);
    extism_plugin_free(busy);
  }
  return true;
}

/* Fork in a host function: parent and child both go on with the call. */
static int in_child_of_callback = -1;

CALLBACK(fork_here) {
  UNUSED;
  fflush(NULL);
  pid_t child = fork();
  in_child_of_callback = child == 0;
  if (child != 0) NOTE(outcome_of(child) == 0);
}

static bool test_inside_a_host_function(void) {
  const char *wat = GUEST(USER("fork_here", ""), DATA("hello")
      FUNC("forks", "(call $fork_here)" OUTPUT(5))
      FUNC("spins", "(call $fork_here) (loop $l (br $l))"));
  for (int spins = 0; spins < 2; spins++) {
    char text[MANIFEST_SIZE];
    manifest(text, wat, "\"timeout_ms\": 5000");
    const ExtismFunction *function =
        extism_function_new("fork_here", NULL, 0, NULL, 0, fork_here, NULL, NULL);
    ExtismPlugin *plugin = plugin_with(text, &function, 1);
    int32_t code = call(plugin, spins ? "spins" : "forks");
    const char *error = extism_plugin_error(plugin);
    bool good = spins ? code == 134 && error && strcmp(error, "timeout") == 0
                      : code == 0 && extism_plugin_output_length(plugin) == 5;
    if (in_child_of_callback) _exit(good ? work() : 1);
    CHECK(good);
    CHECK(work() == 0);
    extism_plugin_free(plugin);
    extism_function_free((ExtismFunction *)function);
  }
  return true;
}

/* The same on a short stack, where the guest runs in a thread of the library, which the child does
 * not have: there the call is an error, and so is what is kept of it. */
static ExtismCurrentPlugin *kept;

CALLBACK(fork_and_keep) {
  fork_here(plugin, inputs, n_inputs, outputs, n_outputs, data);
  kept = plugin;
  NOTE(extism_current_plugin_memory(plugin) != NULL || in_child_of_callback);
}

static int use_after_lost_call(ExtismPlugin *plugin, int32_t code) {
  REQUIRE(code == -1 && strstr(extism_last_error(), "fork"));
  REQUIRE(!extism_current_plugin_memory(kept) && extism_last_error());
  REQUIRE(extism_current_plugin_memory_alloc(kept, 8) == 0);
  REQUIRE(call(plugin, "hello") == -1 && extism_plugin_error(plugin));
  REQUIRE(extism_plugin_output_length(plugin) == 0);
  extism_plugin_free(plugin);
  return work();
}

static void *call_fork_and_keep(void *good) {
  const ExtismFunction *function =
      extism_function_new("fork_and_keep", NULL, 0, NULL, 0, fork_and_keep, NULL, NULL);
  ExtismPlugin *plugin = plugin_with(
      GUEST(USER("fork_and_keep", ""), DATA("hello") FUNC("hello", OUTPUT(5))
            FUNC("forks", "(call $fork_and_keep)" OUTPUT(5))), &function, 1);
  int32_t code = call(plugin, "forks");
  if (in_child_of_callback) _exit(use_after_lost_call(plugin, code));
  *(bool *)good = code == 0 && extism_plugin_output_length(plugin) == 5 && work() == 0;
  extism_plugin_free(plugin);
  extism_function_free((ExtismFunction *)function);
  return NULL;
}

static bool test_inside_a_host_function_on_a_short_stack(void) {
  bool good = false;
  pthread_t thread;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 128 * 1024);
  CHECK(pthread_create(&thread, &attributes, call_fork_and_keep, &good) == 0);
  pthread_join(thread, NULL);
  pthread_attr_destroy(&attributes);
  CHECK(good);
  return true;
}

/* In other callbacks. */
static int forks;

static void fork_and_work(void) {
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) _exit(work());
  NOTE(outcome_of(child) == 0);
  forks++;
}

static void fork_in_finaliser(void *data) {
  (void)data;
  fork_and_work();
}

static void fork_in_drain(const char *line, ExtismSize size) {
  (void)line, (void)size;
  fork_and_work();
}

static bool test_inside_a_finaliser_and_a_drain(void) {
  CHECK(extism_log_custom("error"));
  const ExtismFunction *function =
      extism_function_new("f", NULL, 0, NULL, 0, add_one, &forks, fork_in_finaliser);
  ExtismPlugin *plugin = plugin_with(GUEST("", ""), &function, 1);
  extism_function_free((ExtismFunction *)function);
  extism_plugin_free(plugin);
  CHECK_INT(forks, 1);
  plugin = new_plugin(200);
  CHECK_INT(call(plugin, "log"), 0);
  extism_log_drain(fork_in_drain);
  CHECK_INT(forks, 2);
  extism_plugin_free(plugin);
  return true;
}

/* User data is the child's as well as the parent's, and each finalises its own. */
static int finalised;

static void count(void *data) { *(int *)data += 1; }

static int free_last_user(ExtismCompiledPlugin *compiled, ExtismPlugin *used, ExtismPlugin *fresh) {
  REQUIRE(call(used, "ask") == 42);
  extism_plugin_free(used);
  extism_compiled_plugin_free(compiled);
  REQUIRE(finalised == 0);
  REQUIRE(call(fresh, "ask") == 42);
  extism_plugin_free(fresh);
  REQUIRE(finalised == 1);
  return 0;
}

static bool test_finalisers(void) {
  ExtismValType type = ExtismValType_I64;
  const ExtismFunction *function =
      extism_function_new("add_one", &type, 1, &type, 1, add_one, &finalised, count);
  char text[MANIFEST_SIZE];
  manifest(text, WAT, "\"timeout_ms\": 1000");
  ExtismCompiledPlugin *compiled = extism_compiled_plugin_new((const uint8_t *)text, strlen(text),
                                                              &function, 1, true, NULL);
  extism_function_free((ExtismFunction *)function);
  CHECK(compiled);
  ExtismPlugin *used = extism_plugin_new_from_compiled(compiled, NULL);
  ExtismPlugin *fresh = extism_plugin_new_from_compiled(compiled, NULL);
  CHECK(used && fresh && call(used, "ask") == 42);
  for (int i = 0; i < 3; i++) IN_CHILD(free_last_user(compiled, used, fresh));
  CHECK(free_last_user(compiled, used, fresh) == 0);
  return true;
}

/* The last user goes in the callback, and is the last user until that has returned; after a fork in it too. */
static ExtismPlugin *forking;

CALLBACK(fork_and_free) {
  fork_here(plugin, inputs, n_inputs, outputs, n_outputs, data);
  extism_plugin_free(forking);
  NOTE(finalised == 0);
}

static bool test_freed_in_a_callback_that_forks(void) {
  const ExtismFunction *function = extism_function_new("fork_and_free", NULL, 0, NULL, 0, fork_and_free,
                                                       &finalised, count);
  forking = plugin_with(
      GUEST(USER("fork_and_free", ""), FUNC("forks", "(call $fork_and_free)")), &function, 1);
  extism_function_free((ExtismFunction *)function);
  CHECK(forking);
  int32_t code = call(forking, "forks");
  if (in_child_of_callback) _exit(code != 0 || finalised != 1 || work() != 0);
  CHECK_INT(code, 0);
  CHECK_INT(finalised, 1);
  return true;
}

/* Messages that the parent was given are the child's as well. */
static int free_message(char *errmsg) {
  extism_plugin_new_error_free(errmsg);
  REQUIRE(extism_last_error() == NULL);
  extism_plugin_new_error_free(errmsg);
  REQUIRE(extism_last_error() != NULL);
  return 0;
}

static bool test_messages(void) {
  char *errmsg = NULL;
  CHECK(!extism_plugin_new((const uint8_t *)"(module", 7, NULL, 0, false, &errmsg));
  IN_CHILD(free_message(errmsg));
  CHECK(free_message(errmsg) == 0);
  return true;
}

/* Threads that call, fail, make and free plug-ins, without end: forks find all locks taken
 * at some time or other. */
static atomic_bool over;

static void *storm(void *shared) {
  while (!over) {
    ExtismPlugin *plugin = new_plugin(1000);
    for (int i = 0; i < 20; i++) {
      call(plugin, "hello");
      call(plugin, "trap");
      call(shared, "trap");
      extism_plugin_error(shared);
      extism_plugin_config(shared, (const uint8_t *)"{\"a\":\"b\"}", 9);
      extism_plugin_cancel(extism_plugin_cancel_handle(shared));
    }
    extism_plugin_free(plugin);
  }
  return NULL;
}

static int use_shared(ExtismPlugin *shared) {
  call(shared, "hello"); /* works, or is busy */
  extism_plugin_error(shared);
  extism_plugin_config(shared, (const uint8_t *)"{\"a\":\"b\"}", 9);
  return work();
}

static bool test_storm(void) {
  ExtismPlugin *shared = new_plugin(1000);
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, storm, shared) == 0);
  for (int i = 0; i < 40; i++) IN_CHILD(use_shared(shared));
  over = true;
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  extism_plugin_free(shared);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_large_module);
  RUN(test_before_use);
  RUN(test_after_use);
  RUN(test_grandchildren);
  RUN(test_http);
  RUN(test_logging);
  RUN(test_during_a_call_of_another_thread);
  RUN(test_inside_a_host_function);
  RUN(test_inside_a_host_function_on_a_short_stack);
  RUN(test_inside_a_finaliser_and_a_drain);
  RUN(test_finalisers);
  RUN(test_freed_in_a_callback_that_forks);
  RUN(test_messages);
  RUN(test_storm);
  return check_end();
}
