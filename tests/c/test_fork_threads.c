/* Forks beside threads that are in the middle of anything: the child finds no lock taken that it
 * needs. Each test has threads that do one thing without end, and forks again and again; the windows
 * are short, so one run may miss what a hundred runs find. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <extism.h>

#include "child.h"
#include "guest.h"

CALLBACK(nothing) { UNUSED; }

#define WASI(NAME, TYPE) \
  "(import \"wasi_snapshot_preview1\" \"" NAME "\" (func $" NAME " " TYPE "))"
#define REPEAT(TIMES, BODY)                                                                 \
  "(local $i i32) (loop $l " BODY " (br_if $l (i32.lt_u (local.tee $i"                      \
  " (i32.add (local.get $i) (i32.const 1))) (i32.const " #TIMES "))))"
#define RANDOM "(drop (call $random_get (i32.const 100) (i32.const 8)))"
#define WRITE "(drop (call $fd_write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 80)))"
#define WAT                                                                                 \
  GUEST(USER("f", "") ENV("log_error", "(param i64)")                                       \
            ENV("http_request", "(param i64 i64) (result i64)")                             \
            WASI("random_get", "(param i32 i32) (result i32)")                              \
            WASI("fd_write", "(param i32 i32 i32 i32) (result i32)")                        \
            WASI("poll_oneoff", "(param i32 i32 i32 i32) (result i32)"),                    \
        DATA("hello") "(func $deep (export \"deep\") (call $deep))"                         \
        FUNC("hello", "(call $f)" OUTPUT(5)) FUNC("trap", "unreachable")                    \
        FUNC("fail", FAIL(5) "unreachable")                                                 \
        FUNC("log", "(call $log_error " BLOCK(0, 5) ")")                                    \
        FUNC("wasi", REPEAT(1000, RANDOM WRITE)) FUNC("write", REPEAT(100000, WRITE))       \
        FUNC_I32("nap", "(i64.store (i32.const 224) (i64.const 100000))"                    \
                 "(call $poll_oneoff (i32.const 200) (i32.const 300) (i32.const 1) (i32.const 400))") \
        FUNC("get", "(drop (call $http_request (call $input_offset) (i64.const 0)))"))

/* Two modules, one of which is instantiated for each call into it. */
#define LINKED                                                                              \
  "{\"wasm\": [{\"name\": \"tool\", \"data\": {\"ptr\": %llu, \"len\": %zu}},"              \
  " {\"name\": \"main\", \"data\": {\"ptr\": %llu, \"len\": %zu}}]}"
#define TOOL "(module (func (export \"_start\")) (func (export \"twice\") (param i32) (result i32)" \
             " (i32.mul (local.get 0) (i32.const 2))))"
#define MAIN "(module (import \"tool\" \"twice\" (func $twice (param i32) (result i32)))"   \
             FUNC_I32("run", "(call $twice (i32.const 21))") ")"

static char linked[MANIFEST_SIZE];
static ExtismCompiledPlugin *of_one, *of_two, *of_endless;

static ExtismCompiledPlugin *compile(void) {
  char text[MANIFEST_SIZE];
  manifest(text, WAT, "\"timeout_ms\": 20000, \"allowed_hosts\": [\"127.0.0.1\"]");
  ExtismFunction *function = extism_function_new("f", NULL, 0, NULL, 0, nothing, NULL, NULL);
  const ExtismFunction *functions[] = {function};
  ExtismCompiledPlugin *compiled = extism_compiled_plugin_new(
      (const uint8_t *)text, strlen(text), functions, 1, true, NULL);
  extism_function_free(function);
  return compiled;
}

static ExtismCompiledPlugin *compile_linked(void) {
  return extism_compiled_plugin_new((const uint8_t *)linked, strlen(linked), NULL, 0, true, NULL);
}

static ExtismCompiledPlugin *compile_endless(void) {
  char text[MANIFEST_SIZE];
  manifest(text, "(module (func (export \"spin\") (loop $l (br $l))))", "\"timeout_ms\": 20");
  return extism_compiled_plugin_new((const uint8_t *)text, strlen(text), NULL, 0, false, NULL);
}

static bool set_up(void) {
  snprintf(linked, sizeof linked, LINKED, (unsigned long long)(uintptr_t)TOOL, strlen(TOOL),
           (unsigned long long)(uintptr_t)MAIN, strlen(MAIN));
  of_one = compile();
  of_two = compile_linked();
  of_endless = compile_endless();
  return of_one && of_two && of_endless;
}

static ExtismPlugin *new_of(ExtismCompiledPlugin *compiled) {
  return extism_plugin_new_from_compiled(compiled, NULL);
}

/* What a child can do with compiled plug-ins, its own or its parent's. Frees them. */
static int use(ExtismCompiledPlugin *one, ExtismCompiledPlugin *two, ExtismCompiledPlugin *three) {
  REQUIRE(one && two && three);
  ExtismPlugin *plugin = new_of(one), *of_linked = new_of(two), *endless = new_of(three);
  REQUIRE(plugin && of_linked && endless);
  extism_compiled_plugin_free(one);
  extism_compiled_plugin_free(two);
  extism_compiled_plugin_free(three);
  REQUIRE(call(plugin, "hello") == 0);
  REQUIRE(extism_plugin_output_length(plugin) == 5);
  REQUIRE(call(plugin, "trap") == 134);
  REQUIRE(call(plugin, "wasi") == 0);
  REQUIRE(call(plugin, "nap") == 0);
  REQUIRE(call(plugin, "log") == 0);
  REQUIRE(call(plugin, "fail") == -1);
  REQUIRE(strcmp(extism_plugin_error(plugin), "hello") == 0);
  REQUIRE(call(endless, "spin") == 134);
  REQUIRE(strcmp(extism_plugin_error(endless), "timeout") == 0);
  for (int i = 0; i < 3; i++) REQUIRE(call(of_linked, "run") == 42);
  extism_plugin_free(plugin);
  extism_plugin_free(of_linked);
  extism_plugin_free(endless);
  return 0;
}

static int use_all(void) {
  if (use(compile(), compile_linked(), compile_endless()) != 0) return 1;
  char *errmsg = NULL;
  REQUIRE(!extism_plugin_new((const uint8_t *)"(module", 7, NULL, 0, false, &errmsg) && errmsg);
  extism_plugin_new_error_free(errmsg);
  return use(of_one, of_two, of_endless);
}

static atomic_bool over;

static bool forks_beside(void *(*work)(void *), int forks) {
  pthread_t threads[3];
  CHECK(set_up());
  for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0);
  for (int i = 0; i < forks; i++) IN_CHILD(use_all());
  over = true;
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  CHECK(use_all() == 0);
  return true;
}

static void *trap(void *unused) {
  ExtismPlugin *plugin = new_of(of_one);
  while (!over) {
    call(plugin, "trap");
    call(plugin, "fail");
    extism_plugin_error(plugin);
  }
  extism_plugin_free(plugin);
  return unused;
}

static bool test_beside_traps(void) { return forks_beside(trap, 60); }

static void *overflow(void *unused) {
  ExtismPlugin *plugin = new_of(of_one);
  while (!over) call(plugin, "deep");
  extism_plugin_free(plugin);
  return unused;
}

static bool test_beside_stack_overflows(void) { return forks_beside(overflow, 30); }

static void *use_wasi(void *unused) {
  ExtismPlugin *plugin = new_of(of_one);
  while (!over) call(plugin, "write");
  extism_plugin_free(plugin);
  return unused;
}

static bool test_beside_wasi(void) { return forks_beside(use_wasi, 50); }

static void *create(void *unused) {
  while (!over) {
    ExtismPlugin *plugin = new_of(of_one), *of_linked = new_of(of_two);
    call(plugin, "hello");
    call(of_linked, "run");
    extism_plugin_free(plugin);
    extism_plugin_free(of_linked);
  }
  return unused;
}

static bool test_beside_creation(void) { return forks_beside(create, 40); }

static void *compile_without_end(void *unused) {
  static const char broken[] = "(module (func (export \"f\")) (func (import \"a\" \"b\")))";
  while (!over) {
    extism_compiled_plugin_free(compile());
    extism_compiled_plugin_free(compile_linked());
    char *errmsg = NULL;
    extism_plugin_new((const uint8_t *)broken, strlen(broken), NULL, 0, false, &errmsg);
    extism_plugin_new_error_free(errmsg);
  }
  return unused;
}

static bool test_beside_compiling(void) { return forks_beside(compile_without_end, 30); }

static void *time_out(void *unused) {
  ExtismPlugin *plugin = new_of(of_one), *endless = new_of(of_endless);
  while (!over) {
    call(plugin, "nap");
    call(endless, "spin");
    extism_plugin_cancel(extism_plugin_cancel_handle(endless));
  }
  extism_plugin_free(plugin);
  extism_plugin_free(endless);
  return unused;
}

static bool test_beside_timeouts(void) { return forks_beside(time_out, 30); }

/* Lines into a buffer that is drained, from all sides. */
static atomic_int lines;

static void count_line(const char *line, ExtismSize size) {
  NOTE(size > 0 && line[size - 1] == '\n');
  lines++;
}

static void *log_and_drain(void *unused) {
  ExtismPlugin *plugin = new_of(of_one);
  while (!over) {
    call(plugin, "log");
    extism_log_drain(count_line);
  }
  extism_plugin_free(plugin);
  return unused;
}

static bool test_beside_logging(void) {
  CHECK(extism_log_custom("error"));
  if (!forks_beside(log_and_drain, 30)) return false;
  CHECK(lines > 0);
  return true;
}

/* A plug-in that all share: turns, queues, errors of each thread, configuration. */
static ExtismPlugin *shared;

static void *use_shared(void *unused) {
  while (!over) {
    call(shared, "fail");
    extism_plugin_error(shared);
    extism_plugin_config(shared, (const uint8_t *)"{\"a\":\"b\"}", 9);
    extism_plugin_reset(shared);
    extism_plugin_cancel(extism_plugin_cancel_handle(shared));
  }
  return unused;
}

static int use_shared_and_all(void) {
  call(shared, "hello"); /* works, or is busy */
  extism_plugin_error(shared);
  extism_plugin_config(shared, (const uint8_t *)"{\"a\":\"b\"}", 9);
  extism_plugin_reset(shared);
  extism_plugin_cancel(extism_plugin_cancel_handle(shared));
  extism_plugin_free(shared);
  return use_all();
}

static bool test_beside_threads_that_share_a_plugin(void) {
  pthread_t threads[3];
  CHECK(set_up());
  shared = new_of(of_one);
  for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, use_shared, NULL) == 0);
  for (int i = 0; i < 40; i++) IN_CHILD(use_shared_and_all());
  over = true;
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  CHECK(use_shared_and_all() == 0);
  return true;
}

/* A server that answers each connection, in the process that it was begun in. */
static int listener;

static void *answer(void *unused) {
  static const char response[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
  for (;;) {
    int client = accept(listener, NULL, NULL);
    char request[1024];
    if (client >= 0 && read(client, request, sizeof request) > 0 &&
        write(client, response, strlen(response)) < 0) {
      close(client);
      return unused;
    }
    close(client);
  }
}

static char url[64];

static int get(ExtismPlugin *plugin) { return call_text(plugin, "get", url); }

static bool begin_server(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  listener = socket(AF_INET, SOCK_STREAM, 0);
  pthread_t server;
  if (bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 64) != 0 ||
      getsockname(listener, (struct sockaddr *)&address, &length) != 0 ||
      pthread_create(&server, NULL, answer, NULL) != 0)
    return false;
  snprintf(url, sizeof url, "{\"url\": \"http://127.0.0.1:%d/\"}", ntohs(address.sin_port));
  return true;
}

static void *ask(void *unused) {
  ExtismPlugin *plugin = new_of(of_one);
  while (!over) get(plugin);
  extism_plugin_free(plugin);
  return unused;
}

static int ask_in_child(void) {
  for (int i = 0; i < 2; i++) {
    ExtismPlugin *plugin = new_of(i ? of_one : compile());
    REQUIRE(plugin);
    REQUIRE(get(plugin) == 0);
  }
  return use_all();
}

static bool test_beside_http(void) {
  pthread_t threads[3];
  CHECK(begin_server());
  CHECK(set_up());
  for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, ask, NULL) == 0);
  for (int i = 0; i < 40; i++) IN_CHILD(ask_in_child());
  over = true;
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  CHECK(ask_in_child() == 0);
  return true;
}

/* Two threads that fork, and children with threads that fork. */
static void *fork_without_end(void *unused) {
  while (!over) {
    pid_t child = fork();
    if (child == 0) _exit(0);
    NOTE(outcome_of(child) == 0);
  }
  return unused;
}

static void *fork_twice(void *unused) {
  for (int i = 0; i < 2; i++) {
    pid_t child = fork();
    if (child == 0) _exit(use_all());
    NOTE(outcome_of(child) == 0);
  }
  return unused;
}

static int fork_in_threads(void) {
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) REQUIRE(pthread_create(&threads[i], NULL, fork_twice, NULL) == 0);
  ExtismPlugin *plugin = new_of(of_one);
  for (int i = 0; i < 50; i++) REQUIRE(call(plugin, "trap") == 134 && call(plugin, "wasi") == 0);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  return use_all();
}

static bool test_beside_forks(void) {
  pthread_t threads[2];
  CHECK(set_up());
  for (int i = 0; i < 2; i++) CHECK(!pthread_create(&threads[i], NULL, fork_without_end, NULL));
  for (int i = 0; i < 10; i++) IN_CHILD(fork_in_threads());
  over = true;
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  CHECK(use_all() == 0);
  return true;
}

/* Guests that run in threads of the library, as the stacks are short. */
static void *use_with_short_stack(void *unused) {
  ExtismPlugin *plugin = new_of(of_one);
  while (!over) {
    call(plugin, "hello");
    call(plugin, "trap");
  }
  extism_plugin_free(plugin);
  return unused;
}

static bool test_beside_short_stacks(void) {
  pthread_t threads[3];
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 128 * 1024);
  CHECK(set_up());
  for (int i = 0; i < 3; i++)
    CHECK(!pthread_create(&threads[i], &attributes, use_with_short_stack, NULL));
  for (int i = 0; i < 40; i++) IN_CHILD(use_all());
  over = true;
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  pthread_attr_destroy(&attributes);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_beside_traps);
  RUN(test_beside_stack_overflows);
  RUN(test_beside_wasi);
  RUN(test_beside_creation);
  RUN(test_beside_compiling);
  RUN(test_beside_timeouts);
  RUN(test_beside_logging);
  RUN(test_beside_threads_that_share_a_plugin);
  RUN(test_beside_http);
  RUN(test_beside_forks);
  RUN(test_beside_short_stacks);
  return check_end();
}
