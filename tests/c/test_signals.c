/* Handlers of signals that the host has: before the library's, after them, and with EXTISM_SIGNALS=0,
 * where the library has none. */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <extism.h>

#include "child.h"
#include "guest.h"

static const int signals[] = {SIGSEGV, SIGILL, SIGFPE, SIGBUS};
enum { N_SIGNALS = sizeof signals / sizeof signals[0], TAKEN = 55 };

/* Guests that trap in each way that is a signal. */
static const char *const traps[] = {"unreachable", "divide", "overflow", "load", "store", "deep",
                                    "indirect", "null"};
#define WAT                                                                                  \
  "(module (import \"extism:host/user\" \"f\" (func $f)) (memory 1) (table 1 funcref)"       \
  "(func (export \"unreachable\") unreachable)"                                              \
  "(func (export \"divide\") (drop (i32.div_s (i32.const 1) (i32.const 0))))"                \
  "(func (export \"overflow\") (drop (i32.div_s (i32.const 0x80000000) (i32.const -1))))"    \
  "(func (export \"load\") (drop (i32.load (i32.const -4))))"                                \
  "(func (export \"store\") (i64.store (i32.const 65536) (i64.const 1)))"                    \
  "(func $deep (export \"deep\") (call $deep))"                                              \
  "(func (export \"indirect\") (call_indirect (i32.const 1)))"                               \
  "(func (export \"null\") (call_indirect (i32.const 0)))"                                   \
  "(func (export \"calls\") (call $f)) (func (export \"fine\") (result i32) (i32.const 7)))"

CALLBACK(nothing) { UNUSED; }

static ExtismPlugin *new_plugin(ExtismFunctionType callback) {
  ExtismFunction *function = extism_function_new("f", NULL, 0, NULL, 0, callback, NULL, NULL);
  const ExtismFunction *functions[] = {function};
  ExtismPlugin *plugin = plugin_with(WAT, functions, 1);
  extism_function_free(function);
  return plugin;
}

static bool traps_are_errors(ExtismPlugin *plugin) {
  for (size_t i = 0; i < sizeof traps / sizeof traps[0]; i++) {
    CHECK_INT(call(plugin, traps[i]), 134);
    CHECK(extism_plugin_error(plugin) != NULL);
    CHECK_INT(call(plugin, "fine"), 7);
  }
  return true;
}

/* A handler that goes back to where the fault was asked for. */
static sigjmp_buf back;
static volatile sig_atomic_t handled;

static void jump_back(int signal, siginfo_t *info, void *context) {
  (void)signal, (void)info, (void)context;
  handled++;
  siglongjmp(back, 1);
}

static void take(int signal, siginfo_t *info, void *context) {
  (void)signal, (void)info, (void)context;
  _exit(TAKEN);
}

static struct sigaction before[NSIG];

/* A handler as it should be: what is not its own it leaves to the one that was there. */
static void pass_on(int signal, siginfo_t *info, void *context) {
  handled++;
  before[signal].sa_sigaction(signal, info, context);
}

static void install(void (*handler)(int, siginfo_t *, void *)) {
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  for (int i = 0; i < N_SIGNALS; i++) sigaction(signals[i], &action, &before[signals[i]]);
}

static void fault(void) {
  volatile int *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  *page = 1;
}

/* Whether a fault of the host reaches the handler that it has for it. */
static bool own_fault_is_own(void) {
  handled = 0;
  if (sigsetjmp(back, 1) == 0) {
    fault();
    return false;
  }
  return handled == 1;
}

CALLBACK(fault_in_callback) {
  UNUSED;
  NOTE(own_fault_is_own());
}

static bool test_a_handler_before_ours(void) {
  install(jump_back);
  CHECK(own_fault_is_own());
  ExtismPlugin *plugin = new_plugin(fault_in_callback);
  CHECK(plugin && traps_are_errors(plugin));
  CHECK(own_fault_is_own());
  CHECK_INT(call(plugin, "calls"), 0);
  CHECK(traps_are_errors(plugin));
  extism_plugin_free(plugin);
  CHECK(own_fault_is_own());
  return true;
}

static bool test_a_handler_after_ours_that_passes_on(void) {
  ExtismPlugin *plugin = new_plugin(nothing);
  CHECK(plugin && traps_are_errors(plugin));
  install(pass_on);
  handled = 0;
  CHECK(traps_are_errors(plugin));
  CHECK(handled >= 5);
  extism_plugin_free(plugin);
  return true;
}

/* Documented in the header: such a handler takes the traps away. */
static int trap_behind_handler(void) {
  ExtismPlugin *plugin = new_plugin(nothing);
  REQUIRE(plugin && call(plugin, "unreachable") == 134);
  install(take);
  call(plugin, "unreachable");
  return 1;
}

static bool test_a_handler_after_ours_that_keeps_all(void) {
  pid_t child = fork();
  if (child == 0) _exit(trap_behind_handler());
  CHECK_INT(outcome_of(child), TAKEN);
  return true;
}

static bool test_without_signals_no_handler_sees_a_trap(void) {
  setenv("EXTISM_SIGNALS", "0", 1);
  ExtismPlugin *plugin = new_plugin(nothing);
  CHECK(plugin && traps_are_errors(plugin));
  install(take);
  CHECK(traps_are_errors(plugin));
  extism_plugin_free(plugin);
  return true;
}

/* The first signal that is not left to the system, or 0; those of traps aside if this is said. */
static int first_handled(bool aside_from_traps) {
  for (int signal = 1; signal < NSIG; signal++) {
    bool is_trap = signal == SIGSEGV || signal == SIGILL || signal == SIGFPE;
    struct sigaction action;
    if ((aside_from_traps && is_trap) || sigaction(signal, NULL, &action) != 0) continue;
    if (action.sa_handler != SIG_DFL) return signal;
  }
  return 0;
}

static bool test_what_is_installed(void) {
  int already = first_handled(true); /* by a sanitizer */
  ExtismPlugin *plugin = new_plugin(nothing);
  CHECK(plugin && traps_are_errors(plugin));
  CHECK_INT(first_handled(true), already);
  extism_plugin_free(plugin);
  return true;
}

static bool test_without_signals_nothing_is_installed(void) {
  int already = first_handled(false);
  setenv("EXTISM_SIGNALS", "0", 1);
  ExtismPlugin *plugin = new_plugin(nothing);
  CHECK(plugin && traps_are_errors(plugin));
  CHECK_INT(first_handled(false), already);
  extism_plugin_free(plugin);
  return true;
}

/* A thread that has blocked all signals, as in programs that take them with sigwait or signalfd. */
static void *trap_with_all_blocked(void *good) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, NULL);
  ExtismPlugin *plugin = new_plugin(nothing);
  *(bool *)good = traps_are_errors(plugin);
  extism_plugin_free(plugin);
  sigset_t now;
  pthread_sigmask(SIG_SETMASK, NULL, &now);
  NOTE(sigismember(&now, SIGTERM) && sigismember(&now, SIGUSR1)); /* the others stay blocked */
  return NULL;
}

static bool test_all_signals_blocked(void) {
  bool good = false;
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, trap_with_all_blocked, &good) == 0);
  pthread_join(thread, NULL);
  CHECK(good);
  good = false;
  trap_with_all_blocked(&good);
  CHECK(good);
  return true;
}

int main(int argc, char **argv) {
  check_begin(argc, argv);
  RUN(test_a_handler_before_ours);
  RUN(test_a_handler_after_ours_that_passes_on);
  RUN(test_a_handler_after_ours_that_keeps_all);
  RUN(test_without_signals_no_handler_sees_a_trap);
  RUN(test_what_is_installed);
  RUN(test_without_signals_nothing_is_installed);
  RUN(test_all_signals_blocked);
  return check_end();
}
