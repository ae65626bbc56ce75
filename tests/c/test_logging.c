/* Logs: in a buffer that the host drains, in a file, to a stream. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <extism.h>

#include "child.h"
#include "guest.h"

#define PATH "test_logging.log" /* in the directory that the test runs in */
#define LOG(LEVEL) ENV("log_" LEVEL, "(param i64)")
#define WAT                                                                              \
  GUEST(LOG("trace") LOG("debug") LOG("info") LOG("warn") LOG("error")                   \
            ENV("get_log_level", "(result i32)"),                                        \
        DATA("onetwo")                                                                   \
        FUNC("all", "(call $log_trace " BLOCK(0, 1) ") (call $log_debug " BLOCK(0, 2) ")" \
                    "(call $log_info " BLOCK(0, 3) ") (call $log_warn " BLOCK(3, 3) ")"  \
                    "(call $log_error " BLOCK(0, 6) ")")                                 \
        FUNC_I32("level", "(call $get_log_level)")                                       \
        FUNC("no_block", "(call $log_info (i64.const 12345))"))

static char drained[4096];
static size_t n_drained, n_lines;

/* A drained line ends with a newline and is no string: its size counts. */
static void append(const char *line, ExtismSize size) {
  NOTE(size > 0 && line[size - 1] == '\n');
  if (n_drained + size >= sizeof drained) return;
  memcpy(drained + n_drained, line, size);
  n_drained += size;
  drained[n_drained] = '\0';
  n_lines++;
}

static void drain(void) {
  n_drained = n_lines = 0;
  drained[0] = '\0';
  extism_log_drain(append);
}

/* The UUID of a plug-in as it stands in a log line. */
static void id_text(ExtismPlugin *plugin, char to[37]) {
  const uint8_t *id = extism_plugin_id(plugin);
  for (int i = 0; i < 16; i++) {
    to += sprintf(to, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", id[i]);
  }
}

static bool test_lines(void) {
  CHECK(extism_log_custom("extism::pdk=info"));
  ExtismPlugin *plugin = plugin_from(WAT);
  CHECK(plugin != NULL);
  drain();
  CHECK_INT(call(plugin, "all"), 0);
  drain();
  CHECK_INT(n_lines, 3);

  /* 2026-01-31T12:00:00.000000Z  INFO extism::pdk: one plugin="..." */
  char id[37], expected[128];
  id_text(plugin, id);
  CHECK(drained[4] == '-' && drained[10] == 'T');
  sprintf(expected, "Z  INFO extism::pdk: one plugin=\"%s\"\n", id);
  CHECK_CONTAINS(drained, expected);
  sprintf(expected, "Z  WARN extism::pdk: two plugin=\"%s\"\n", id);
  CHECK_CONTAINS(drained, expected);
  sprintf(expected, "Z ERROR extism::pdk: onetwo plugin=\"%s\"\n", id);
  CHECK_CONTAINS(drained, expected);

  drain(); /* what was drained is gone */
  CHECK_INT(n_lines, 0);
  extism_plugin_free(plugin);
  return true;
}

static bool logs_at(const char *filter, int32_t level, size_t lines) {
  CHECK(extism_log_custom(filter));
  ExtismPlugin *plugin = plugin_from(WAT);
  CHECK(plugin != NULL);
  drain();
  CHECK_INT(call(plugin, "level"), level);
  CHECK_INT(call(plugin, "all"), 0);
  drain();
  CHECK_INT(n_lines, lines);
  extism_plugin_free(plugin);
  return true;
}

static bool test_trace(void) { return logs_at("extism::pdk=trace", 0, 5); }
static bool test_warn(void) { return logs_at("warn", 3, 2); }
static bool test_default_level(void) { return logs_at(NULL, 4, 1); }
static bool test_off(void) { return logs_at("off", INT32_MAX, 0); }
static bool test_other_target(void) { return logs_at("cranelift=trace", INT32_MAX, 0); }

static bool test_without_a_log(void) {
  ExtismPlugin *plugin = plugin_from(WAT);
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "level"), INT32_MAX);
  CHECK_INT(call(plugin, "all"), 0);
  CHECK_INT(call(plugin, "no_block"), -1);
  CHECK(extism_plugin_error(plugin) != NULL);
  drain();
  CHECK_INT(n_lines, 0);
  extism_plugin_free(plugin);
  return true;
}

static bool test_bad_levels(void) {
  static const char *const bad[] = {"loud", "extism=loud", "\xff"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    CHECK(!extism_log_custom(bad[i]));
    CHECK(extism_last_error() != NULL);
    CHECK(!extism_log_file(PATH, bad[i]));
    CHECK(extism_last_error() != NULL);
  }
  CHECK(extism_log_custom("info")); /* nothing is spoilt */
  return true;
}

/* A drain may use the library, and what it logs is drained later. */
static ExtismPlugin *logging;

static void log_while_draining(const char *line, ExtismSize size) {
  (void)line, (void)size;
  n_lines++;
  if (n_lines == 1) NOTE(call(logging, "all") == 0);
}

static bool test_drain_may_log(void) {
  CHECK(extism_log_custom("extism::pdk=error"));
  logging = plugin_from(WAT);
  CHECK(logging != NULL);
  CHECK_INT(call(logging, "all"), 0);
  n_lines = 0;
  extism_log_drain(log_while_draining);
  extism_log_drain(log_while_draining);
  CHECK_INT(n_lines, 2);
  extism_plugin_free(logging);
  return true;
}

/* What waits is neither lost by a second log, nor by a drain without a handler. */
static bool test_nothing_is_lost(void) {
  CHECK(extism_log_custom("extism::pdk=error"));
  ExtismPlugin *plugin = plugin_from(WAT);
  CHECK(plugin != NULL);
  drain();
  CHECK_INT(call(plugin, "all"), 0);
  CHECK(!extism_log_custom("trace"));
  CHECK_CONTAINS(extism_last_error(), "already");
  CHECK(!extism_log_file(PATH, "trace"));
  CHECK_CONTAINS(extism_last_error(), "already");
  CHECK(!extism_log_file(NULL, NULL));
  extism_log_drain(NULL);
  CHECK_CONTAINS(extism_last_error(), "NULL");
  drain();
  CHECK_INT(n_lines, 1);
  CHECK_CONTAINS(drained, "ERROR extism::pdk: onetwo plugin=");
  extism_plugin_free(plugin);
  return true;
}

/* A handler that drains and logs without end: each drain ends where it began. */
static void drain_in_drain(const char *line, ExtismSize size) {
  (void)line, (void)size;
  n_lines++;
  NOTE(call(logging, "all") == 0);
  if (n_lines < 50) extism_log_drain(drain_in_drain);
}

static bool test_drain_in_drain(void) {
  CHECK(extism_log_custom("extism::pdk=error"));
  logging = plugin_from(WAT);
  CHECK(logging != NULL);
  CHECK_INT(call(logging, "all"), 0);
  n_lines = 0;
  extism_log_drain(drain_in_drain);
  CHECK_INT(n_lines, 50);
  extism_plugin_free(logging);
  return true;
}

static bool test_no_files(void) {
  remove(PATH);
  CHECK_INT(mkfifo(PATH, 0600), 0);
  static const char *const none[] = {PATH, "/", ".", "/no/such/directory/log", "/proc/version/log", ""};
  for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
    CHECK(!extism_log_file(none[i], "info"));
    CHECK_CONTAINS(extism_last_error(), "cannot be opened for appending");
    CHECK_CONTAINS(extism_last_error(), none[i]);
  }
  remove(PATH);
  CHECK(extism_log_file(PATH, "info")); /* nothing is spoilt */
  remove(PATH);
  return true;
}

static const char *read_log(void) {
  static char content[4096];
  FILE *file = fopen(PATH, "rb");
  if (!file) return NULL;
  content[fread(content, 1, sizeof content - 1, file)] = '\0';
  fclose(file);
  return content;
}

static bool test_file(void) {
  remove(PATH);
  CHECK(!extism_log_file("/no/such/directory/log", "info"));
  CHECK_CONTAINS(extism_last_error(), "/no/such/directory/log");
  CHECK(extism_log_file(PATH, "extism::pdk=warn"));
  ExtismPlugin *plugin = plugin_from(WAT);
  CHECK(plugin != NULL);
  CHECK_INT(call(plugin, "all"), 0);
  CHECK_CONTAINS(read_log(), " WARN extism::pdk: two plugin=\"");
  CHECK_CONTAINS(read_log(), "ERROR extism::pdk: onetwo plugin=\"");
  CHECK(!strstr(read_log(), ": one plugin"));
  extism_plugin_free(plugin);
  remove(PATH);
  return true;
}

static bool test_stdout(void) { return extism_log_file("stdout", "off"); }
static bool test_stderr(void) { return extism_log_file("stderr", "off"); }
static bool test_dash(void) { return extism_log_file("-", "off"); }
static bool test_default_stream(void) { return extism_log_file(NULL, "off"); }

/* Standard error is a pipe from now on; returns the end to read from. */
static int pipe_as_stderr(void) {
  int ends[2];
  if (pipe(ends) != 0 || dup2(ends[1], STDERR_FILENO) < 0) return -1;
  close(ends[1]);
  return ends[0];
}

/* Whoever reads the log may go: that does not end the process, though SIGPIPE would. */
static bool test_a_reader_that_goes(void) {
  signal(SIGPIPE, SIG_DFL);
  int reader = pipe_as_stderr();
  CHECK(reader >= 0 && extism_log_file("stderr", "info"));
  ExtismPlugin *plugin = plugin_from(WAT);
  CHECK_INT(call(plugin, "all"), 0);
  char text[16];
  CHECK(read(reader, text, sizeof text) == sizeof text);
  close(reader);
  for (int i = 0; i < 3; i++) CHECK_INT(call(plugin, "all"), 0);
  extism_plugin_free(plugin);
  return true;
}

static int free_in_child(ExtismPlugin *plugin) {
  extism_plugin_free(plugin);
  return 0;
}

/* Whoever reads the log may stop: no call is kept past its time for that, no other plug-in, and no fork. */
static bool test_a_reader_that_stops(void) {
  int reader = pipe_as_stderr();
  CHECK(reader >= 0 && extism_log_file("stderr", "info"));
  ExtismPlugin *plugin = plugin_limited(
      GUEST(LOG("info"), DATA("one") FUNC("logs", "(loop $l (call $log_info " BLOCK(0, 3) ") (br $l))")
            FUNC("once", "(call $log_info " BLOCK(0, 3) ")")),
      "\"timeout_ms\": 300");
  ExtismPlugin *other = plugin_from(WAT);
  CHECK(plugin && other);
  time_t began = time(NULL);
  CHECK_INT(call(plugin, "logs"), 134);
  CHECK(strcmp(extism_plugin_error(plugin), "timeout") == 0);
  CHECK_INT(call(other, "all"), 0);
  IN_CHILD(free_in_child(other));
  CHECK(time(NULL) - began <= 10 * check_slowdown());
  /* When it goes on, so does the log, with a line of its own. */
  static char text[1 << 20];
  CHECK(read(reader, text, sizeof text) > 0);
  CHECK_INT(call(plugin, "once"), 0);
  ssize_t length = read(reader, text, sizeof text - 1);
  CHECK(length > 0);
  text[length] = '\0';
  const char *line = length > 1 && text[0] == '\n' ? text + 1 : text;
  CHECK(line[4] == '-' && strstr(line, "INFO extism::pdk: one"));
  extism_plugin_free(plugin);
  extism_plugin_free(other);
  return true;
}

/* The same for what a plug-in prints. */
static bool test_what_a_plugin_prints(void) {
  signal(SIGPIPE, SIG_DFL);
  setenv("EXTISM_ENABLE_WASI_OUTPUT", "1", 1);
  int reader = pipe_as_stderr();
  ExtismPlugin *plugin = plugin_limited(
      "(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))"
      "(memory (export \"memory\") 2) (data (i32.const 0) \"\\08\\00\\00\\00\\00\\80\\00\\00\")"
      "(func $print (result i32) (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 65536)))"
      "(func (export \"print\") (result i32) (call $print))"
      "(func (export \"prints\") (loop $l (drop (call $print)) (br $l))))",
      "\"timeout_ms\": 300");
  CHECK(reader >= 0 && plugin);
  CHECK_INT(call(plugin, "print"), 0);
  CHECK_INT(call(plugin, "prints"), 134);
  close(reader);
  CHECK(call(plugin, "print") > 0); /* an error number */
  extism_plugin_free(plugin);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_lines);
  RUN(test_trace);
  RUN(test_warn);
  RUN(test_default_level);
  RUN(test_off);
  RUN(test_other_target);
  RUN(test_without_a_log);
  RUN(test_bad_levels);
  RUN(test_drain_may_log);
  RUN(test_nothing_is_lost);
  RUN(test_drain_in_drain);
  RUN(test_no_files);
  RUN(test_file);
  RUN(test_stdout);
  RUN(test_stderr);
  RUN(test_dash);
  RUN(test_default_stream);
  RUN(test_a_reader_that_goes);
  RUN(test_a_reader_that_stops);
  RUN(test_what_a_plugin_prints);
  return check_end();
}
