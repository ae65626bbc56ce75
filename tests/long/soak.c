/* Millions of calls, and many thousand plug-ins that are made and freed, on several threads, with everything mixed in that
 * ends a call or a plug-in early. What a process has after the first tenth, it has at the end: memory, threads, mappings,
 * file descriptors.
 *
 *     soak CALLS PLUGINS THREADS
 *
 * Each worker makes a plug-in, calls it some hundred times and frees it. All results are compared with what must come.
 * After each tenth all workers stand still, without plug-ins, and what the process has is printed. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <extism.h>

#include "guest.h"

enum { TENTHS = 10, MAX_THREADS = 64, LARGE = 1 << 20 };
static const long MAX_GROWTH = 2 << 20; /* bytes resident */
static const long MAX_LEAK = 256 << 10; /* bytes allocated: a list of the library may still double */
static const unsigned IDLE = 6;         /* seconds after which idle threads of the library have ended */

static long long calls, plugins;
static int threads;
static atomic_llong calls_done, plugins_done, ended_early, refused;
static atomic_llong lines_written, lines_drained;
static atomic_llong functions_made, functions_finalised;
static atomic_int faults;

static void fault(const char *what, const char *detail) {
  if (atomic_fetch_add(&faults, 1) < 20) printf("  wrong: %s: %s\n", what, detail ? detail : "(NULL)");
}

/* xorshift, one for each worker. */
static uint64_t next(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state >> 16;
}

/* What the plug-ins are. One kind calls a linked module, which is made anew for each such call. */
#define BODY(LINKED)                                                                                      \
  DATA("keyvaluehttp://127.0.0.1:9/ {\\\"url\\\": \\\"http://127.0.0.1:9/\\\"}")                  \
  FUNC("nothing", "")                                                                             \
  FUNC("echo", "(call $output_set (call $input_offset) (call $input_length))")                    \
  FUNC_I32("host", "(i32.wrap_i64 (call $work (call $block (i32.const 0) (i32.const 3))))")       \
  FUNC_I32("vars", "(call $var_set " BLOCK(0, 3) " " BLOCK(3, 5) ")"                              \
                   "(i32.wrap_i64 (call $length (call $var_get " BLOCK(0, 3) ")))")               \
  FUNC("logs", "(call $log_info " BLOCK(0, 8) ")")                                                \
  FUNC_I32("reads", "(i32.wrap_i64 (call $length (call $config_get " BLOCK(0, 3) ")))")           \
  FUNC_I32("fails", FAIL(3) "(i32.const 3)") FUNC("traps", OUTPUT(3) "unreachable")               \
  FUNC("asks", "(drop (call $http_request " BLOCK(28, 30) " (i64.const 0)))")                     \
  FUNC("eats", "(loop $l (drop (call $alloc (i64.const 65536))) (br $l))")                        \
  FUNC("spins", "(loop $l (br $l))") FUNC("ends", "(call $end) (loop $l (br $l))")                \
  FUNC_I32("linked", LINKED)

#define WAT(IMPORT, LINKED)                                                                                       \
  GUEST(IMPORT USER("work", "(param i64) (result i64)") USER("end", "")                           \
        ENV("var_set", "(param i64 i64)") ENV("var_get", "(param i64) (result i64)")              \
        ENV("config_get", "(param i64) (result i64)") ENV("log_info", "(param i64)")              \
        ENV("http_request", "(param i64 i64) (result i64)"), BODY(LINKED))

static const char ALONE[] = WAT("", "(i32.const 5)");
static const char LINKING[] = WAT("(import \"lib\" \"f\" (func $f (result i32)))", "(call $f)");
static const char LIB[] = "(module (memory 1) (global $n (mut i32) (i32.const 0)) (func (export \"_start\"))"
                          " (func (export \"f\") (result i32)"
                          " (global.set $n (i32.add (global.get $n) (i32.const 5))) (global.get $n)))";

static const char *const BAD_MODULES[] = {
    "(module (import \"nowhere\" \"f\" (func)))",
    "(module (memory 70000))",
    "(module (func (i32.const 1)))",
    "no module",
    "{\"wasm\": []}",
};

CALLBACK(work) {
  UNUSED;
  ExtismMemoryHandle block = extism_current_plugin_memory_alloc(plugin, 100);
  memset(extism_current_plugin_memory(plugin) + block, 7, 100);
  outputs[0].v.i64 = (int64_t)(extism_current_plugin_memory_length(plugin, block) +
                               extism_current_plugin_memory_length(plugin, (ExtismMemoryHandle)inputs[0].v.i64));
  extism_current_plugin_memory_free(plugin, block);
}

/* Ends the call that it is called in: by a cancel, or by freeing the plug-in first. */
struct ending {
  ExtismPlugin *plugin;
  const ExtismCancelHandle *handle;
  bool frees;
};

CALLBACK(end) {
  UNUSED;
  struct ending *ending = extism_current_plugin_host_context(plugin);
  if (ending->frees) extism_plugin_free(ending->plugin);
  if (!extism_plugin_cancel(ending->handle)) fault("cancel in a callback", extism_last_error());
}

static void finalise(void *data) {
  (void)data;
  functions_finalised++;
}

static ExtismFunction *function(const char *name, ExtismFunctionType body, int arity) {
  static const ExtismValType i64 = ExtismValType_I64;
  functions_made++;
  return extism_function_new(name, &i64, arity, &i64, arity, body, &functions_finalised, finalise);
}

/* What plug-ins are made of: the same module in different surroundings. */
enum kind { PLAIN, LIMITED, TIMED, LINKED, FUELED, WASI, KINDS };

static void source(enum kind kind, char *text) {
  static const char *const FIELDS[KINDS] = {
      [LIMITED] = "\"memory\": {\"max_pages\": 8}, \"config\": {\"key\": \"first\"}",
      [TIMED] = "\"timeout_ms\": 3",
  };
  if (kind == LINKED) {
    snprintf(text, MANIFEST_SIZE,
             "{\"wasm\": [{\"name\": \"lib\", \"data\": {\"ptr\": %llu, \"len\": %zu}},"
             " {\"name\": \"main\", \"data\": {\"ptr\": %llu, \"len\": %zu}}]}",
             (unsigned long long)(uintptr_t)LIB, strlen(LIB), (unsigned long long)(uintptr_t)LINKING,
             strlen(LINKING));
  } else {
    manifest(text, ALONE, FIELDS[kind] ? FIELDS[kind] : "");
  }
}

static ExtismCompiledPlugin *compile(enum kind kind) {
  char text[MANIFEST_SIZE], *errmsg = NULL;
  source(kind, text);
  ExtismFunction *functions[] = {function("work", work, 1), function("end", end, 0)};
  const uint8_t *bytes = (const uint8_t *)text;
  ExtismCompiledPlugin *compiled =
      kind == FUELED ? extism_compiled_plugin_new_with_fuel_limit(
                           bytes, strlen(text), (const ExtismFunction **)functions, 2, false, 10000, &errmsg)
                     : extism_compiled_plugin_new(bytes, strlen(text), (const ExtismFunction **)functions, 2,
                                                  kind == WASI, &errmsg);
  for (int i = 0; i < 2; i++) extism_function_free(functions[i]);
  if (!compiled) {
    printf("%s\n", errmsg);
    exit(1);
  }
  return compiled;
}

static ExtismCompiledPlugin *compiled[KINDS];

/* A plug-in that was compiled for itself alone, with functions of its own. */
static ExtismPlugin *make_alone(enum kind kind) {
  char text[MANIFEST_SIZE];
  source(kind, text);
  ExtismFunction *functions[] = {function("work", work, 1), function("end", end, 0)};
  ExtismPlugin *plugin = extism_plugin_new((const uint8_t *)text, strlen(text),
                                           (const ExtismFunction **)functions, 2, false, NULL);
  for (int i = 0; i < 2; i++) extism_function_free(functions[i]);
  return plugin;
}

static void fail_to_make(uint64_t number) {
  const char *text = BAD_MODULES[number % (sizeof BAD_MODULES / sizeof *BAD_MODULES)];
  ExtismFunction *unused = function("work", work, 1);
  char *errmsg = NULL;
  ExtismPlugin *plugin = extism_plugin_new((const uint8_t *)text, strlen(text),
                                           (const ExtismFunction **)&unused, 1, false, &errmsg);
  if (plugin || !errmsg) fault("a bad module", text);
  extism_plugin_free(plugin);
  extism_plugin_new_error_free(errmsg);
  extism_function_free(unused);
  refused++;
}

/* One thread ends the calls of all workers: what is to be ended lies in the worker's slot. */
struct slot {
  _Atomic(const ExtismCancelHandle *) handle;
  _Atomic(ExtismPlugin *) to_free;
  atomic_bool looked_at; /* a cancel may be on its way, which must not reach the worker's next call */
};
static struct slot slots[MAX_THREADS];
static sem_t something_to_end;
static atomic_bool over;

static void *end_calls(void *unused) {
  (void)unused;
  while (sem_wait(&something_to_end) == 0 && !over) {
    for (bool again = true; again;) {
      again = false;
      for (int i = 0; i < threads; i++) {
        slots[i].looked_at = true;
        const ExtismCancelHandle *handle = slots[i].handle;
        if (handle) {
          ExtismPlugin *plugin = atomic_exchange(&slots[i].to_free, NULL);
          if (plugin) extism_plugin_free(plugin);
          extism_plugin_cancel(handle); /* maybe before the call has begun: so again */
          again = true;
        }
        slots[i].looked_at = false;
      }
      usleep(20);
    }
  }
  return NULL;
}

struct worker {
  int number;
  uint64_t random;
  uint8_t *large;
  pthread_t thread;
};

static bool text_is(const char *text, const char *wanted) {
  return wanted ? text && strncmp(text, wanted, strlen(wanted)) == 0 : text == NULL;
}

/* Calls; the code and the beginning of the error must be these. */
static bool expect(ExtismPlugin *plugin, enum kind kind, const char *name, const void *data,
                   size_t size, int32_t code, const char *error) {
  int32_t ended = extism_plugin_call(plugin, name, data, size);
  const char *text = extism_plugin_error(plugin);
  if (code != 0) ended_early++;
  if (ended == code && text_is(text, error)) return true;
  if (kind == TIMED && ended == 134 && text_is(text, "timeout")) return false; /* a busy machine */
  fault(name, text);
  return false;
}

static void echo(ExtismPlugin *plugin, enum kind kind, const uint8_t *bytes, size_t size) {
  if (!expect(plugin, kind, "echo", bytes, size, 0, NULL)) return;
  if (extism_plugin_output_length(plugin) != size ||
      memcmp(extism_plugin_output_data(plugin), bytes, size) != 0) {
    fault("echo", "other bytes");
  }
}

/* Ends a call: in its own callback, or from another thread; by a cancel, or by freeing the plug-in
 * as well. Returns whether the plug-in is gone. */
static bool end_call(struct worker *worker, ExtismPlugin *plugin, uint64_t choice) {
  struct ending ending = {plugin, extism_plugin_cancel_handle(plugin), choice % 4 == 0};
  int32_t code;
  if (choice & 1) {
    slots[worker->number].to_free = ending.frees ? plugin : NULL;
    slots[worker->number].handle = ending.handle;
    sem_post(&something_to_end);
    code = call(plugin, "spins");
    /* Freed before the call began: then there is no call, and nothing to cancel. */
    if (ending.frees && code == -1) code = 134;
    slots[worker->number].handle = NULL;
    while (slots[worker->number].looked_at) sched_yield();
  } else {
    code = extism_plugin_call_with_host_context(plugin, "ends", NULL, 0, &ending);
  }
  ended_early++;
  if (code != 134) fault("cancel", extism_plugin_error(plugin));
  return ending.frees;
}

/* One call, or a little more. Returns whether the plug-in is gone. */
static bool use(struct worker *worker, ExtismPlugin *plugin, enum kind kind) {
  uint64_t choice = next(&worker->random);
  switch (choice % 1000) {
    case 0: /* 1 in 1,000 */
      if (kind == FUELED) break;
      return end_call(worker, plugin, choice >> 20);
    case 1:
      if (kind == TIMED) expect(plugin, kind, "spins", NULL, 0, 134, "timeout");
      if (kind == FUELED) expect(plugin, kind, "spins", NULL, 0, -1, "plugin ran out of fuel");
      break;
    case 2:
      if (kind == LIMITED) expect(plugin, kind, "eats", NULL, 0, -1, "oom");
      break;
    case 3 ... 5: echo(plugin, kind, worker->large, choice >> 20 & (kind == LIMITED ? 0xffff : LARGE - 1)); break;
    case 6 ... 15: expect(plugin, kind, "asks", NULL, 0, -1, "HTTP"); break;
    case 16 ... 25:
      if (!extism_plugin_config(plugin, (const uint8_t *)"{\"key\": \"second\"}", 17)) fault("config", "");
      expect(plugin, kind, "reads", NULL, 0, 6, NULL);
      break;
    case 26 ... 35:
      if (!extism_plugin_reset(plugin)) fault("reset", extism_plugin_error(plugin));
      break;
    case 36 ... 55: expect(plugin, kind, "traps", NULL, 0, 134, "wasm trap"); break;
    case 56 ... 85: expect(plugin, kind, "fails", NULL, 0, 3, "key"); break;
    case 86 ... 95: expect(plugin, kind, "nowhere", NULL, 0, -1, "Function not found"); break;
    case 96 ... 155: expect(plugin, kind, "vars", NULL, 0, 5, NULL); break;
    case 156 ... 195:
      if (kind == TIMED) break; /* whether a call that timed out had logged is not known */
      lines_written += expect(plugin, kind, "logs", NULL, 0, 0, NULL);
      break;
    case 196 ... 205: expect(plugin, kind, "linked", NULL, 0, 5, NULL); break;
    case 206 ... 305: expect(plugin, kind, "host", NULL, 0, 103, NULL); break;
    case 306 ... 505: echo(plugin, kind, worker->large, choice >> 20 & 511); break;
    default: expect(plugin, kind, "nothing", NULL, 0, 0, NULL);
  }
  return false;
}

static void take_line(const char *line, ExtismSize size) {
  if (!memmem(line, size, "keyvalue", 8)) fault("a line of the log", line);
  lines_drained++;
}

static void live(struct worker *worker) {
  uint64_t choice = next(&worker->random);
  if (choice % 16 == 0) fail_to_make(choice >> 8);
  enum kind kind = choice >> 16 & 1 ? PLAIN : (enum kind)(choice >> 17 & 0xff) % KINDS;
  bool alone = (choice >> 32) % 512 == 0 && kind < FUELED;
  ExtismPlugin *plugin =
      alone ? make_alone(kind) : extism_plugin_new_from_compiled(compiled[kind], NULL);
  if (!plugin) return fault("a plug-in", extism_last_error());
  long long count = calls / plugins;
  bool is_gone = false;
  for (long long i = 0; i < count; i++) {
    calls_done++;
    if ((is_gone = use(worker, plugin, kind))) {
      calls_done += count - i - 1; /* so that all tenths are alike */
      break;
    }
  }
  if (!is_gone) extism_plugin_free(plugin);
  plugins_done++;
  extism_log_drain(take_line);
}

static pthread_barrier_t tenth;

static void *work_on(void *argument) {
  struct worker *worker = argument;
  for (int i = 0; i < TENTHS; i++) {
    for (long long n = plugins / TENTHS / threads; n > 0; n--) live(worker);
    pthread_barrier_wait(&tenth); /* done */
    pthread_barrier_wait(&tenth); /* go on */
  }
  return NULL;
}

/* What the process has. */
struct figures {
  long resident, in_use, threads, mappings, descriptors;
};

static long entries(const char *directory) {
  DIR *opened = opendir(directory);
  long count = 0;
  for (struct dirent *entry; (entry = readdir(opened));) count += entry->d_name[0] != '.';
  closedir(opened);
  return count;
}

static void *nothing(void *unused) { return unused; }

/* The stack of the thread that ended last is kept by the C library: let that be one of ours. */
static void end_a_thread(void) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, nothing, NULL) == 0) pthread_join(thread, NULL);
}

static struct figures measure(void) {
  struct figures figures = {.threads = entries("/proc/self/task"), .descriptors = entries("/proc/self/fd")};
  long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file || fscanf(file, "%*d %ld", &pages) != 1) exit(1);
  fclose(file);
  figures.resident = pages * sysconf(_SC_PAGESIZE);
  file = fopen("/proc/self/maps", "r");
  for (int c; file && (c = getc(file)) != EOF;) figures.mappings += c == '\n';
  fclose(file);
  figures.in_use = (long)mallinfo2().uordblks;
  return figures;
}

static bool is_equal(const char *what, long before, long after) {
  if (before == after) return true;
  printf("%s: %ld, but %ld at the end\n", what, before, after);
  return false;
}

/* A place in the pool of instances has more mappings from its first use on, and which place is used is the pool's own
 * choice. So all of them are used once: the pool has 1,000. */
static void fill_the_pool(void) {
  enum { MANY = 1100 };
  static ExtismPlugin *all[MANY];
  for (int kind = 0; kind < KINDS; kind++) {
    for (int i = 0; i < MANY; i++) {
      all[i] = extism_plugin_new_from_compiled(compiled[kind], NULL);
      if (call(all[i], "nothing") != 0 && kind != TIMED) fault("a plug-in at the start", extism_plugin_error(all[i]));
    }
    for (int i = 0; i < MANY; i++) extism_plugin_free(all[i]);
  }
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  calls = atoll(argv[1]), plugins = atoll(argv[2]), threads = atoi(argv[3]);
  if (threads < 1 || threads > MAX_THREADS || plugins < threads * TENTHS || calls < plugins) return 2;
  setvbuf(stdout, NULL, _IOLBF, 0);
  sem_init(&something_to_end, 0, 0);
  pthread_barrier_init(&tenth, NULL, (unsigned)threads + 1);
  extism_log_custom("info");
  for (int kind = 0; kind < KINDS; kind++) compiled[kind] = compile((enum kind)kind);

  fill_the_pool();

  static struct worker workers[MAX_THREADS];
  pthread_t ender;
  pthread_create(&ender, NULL, end_calls, NULL);
  for (int i = 0; i < threads; i++) {
    workers[i] = (struct worker){.number = i, .random = 0x9e3779b97f4a7c15u * (unsigned)(i + 1), .large = malloc(LARGE)};
    memset(workers[i].large, 'a' + i, LARGE);
    /* The first has too little stack for a guest, which runs on a thread of the library then. */
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    if (i == 0) pthread_attr_setstacksize(&attributes, 256 * 1024);
    if (pthread_create(&workers[i].thread, &attributes, work_on, &workers[i]) != 0) return 1;
  }

  struct figures first = {0}, last = {0};
  long most = 0;
  struct timespec began, now;
  clock_gettime(CLOCK_MONOTONIC, &began);
  printf("%12s %9s %12s %9s %8s | %12s %12s %8s %9s %5s\n", "calls", "plug-ins", "ended early", "refused",
         "seconds", "resident", "allocated", "threads", "mappings", "files");
  for (int i = 0; i < TENTHS; i++) {
    pthread_barrier_wait(&tenth);
    sleep(IDLE);
    end_a_thread();
    last = measure();
    if (i == 0) first = last;
    if (last.resident > most) most = last.resident;
    clock_gettime(CLOCK_MONOTONIC, &now);
    printf("%12lld %9lld %12lld %9lld %8lld | %12ld %12ld %8ld %9ld %5ld\n", calls_done, plugins_done,
           ended_early, refused, (long long)(now.tv_sec - began.tv_sec), last.resident, last.in_use,
           last.threads, last.mappings, last.descriptors);
    pthread_barrier_wait(&tenth);
  }
  for (int i = 0; i < threads; i++) pthread_join(workers[i].thread, NULL);
  over = true;
  sem_post(&something_to_end);
  pthread_join(ender, NULL);
  for (int kind = 0; kind < KINDS; kind++) extism_compiled_plugin_free(compiled[kind]);

  bool good = faults == 0;
  good &= is_equal("threads", first.threads, last.threads);
  good &= is_equal("mappings", first.mappings, last.mappings);
  good &= is_equal("file descriptors", first.descriptors, last.descriptors);
  good &= is_equal("lines of the log", lines_written, lines_drained);
  good &= is_equal("finalised functions", functions_made, functions_finalised);
  if (last.in_use - first.in_use > MAX_LEAK) {
    printf("allocated memory has grown by %ld bytes since the first tenth\n", last.in_use - first.in_use);
    good = false;
  }
  if (most - first.resident > MAX_GROWTH) {
    printf("resident memory has grown by %ld bytes since the first tenth\n", most - first.resident);
    good = false;
  }
  printf(good ? "nothing has grown\n" : "FAILED, %d wrong results\n", faults);
  return good ? 0 : 1;
}
