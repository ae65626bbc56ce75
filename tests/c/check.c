/* Runs each test in a process of its own: see check.h. */
#define _GNU_SOURCE
#include "check.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXACT "--exact"
#define DEADLINE 120 /* seconds; see check_slowdown */
#define DONE 42      /* how the process of a test ends that came to its end, and held */

static const char *filter; /* a part of the names of the tests to run */
static const char *only;   /* in the process of one test: its name */
static char program[PATH_MAX];
static int passed, failed;
static atomic_bool noted;

void check_note(void) { noted = true; }

/* Whether LEFT_OUT, words with spaces between them, has this name. */
static bool left_out(const char *name) {
  const char *list = getenv("LEFT_OUT");
  size_t length = strlen(name);
  for (const char *at = list; at && (at = strstr(at, name)); at += length)
    if ((at == list || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0')) return true;
  return false;
}

int check_slowdown(void) {
  const char *text = getenv("EXTISM_TEST_SLOWDOWN");
  int times = text ? atoi(text) : 1;
  return times > 0 ? times : 1;
}

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

void check_sleep(int milliseconds) {
  struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

bool check_wait(pid_t child, int seconds, int *status) {
  double end = now() + (double)seconds * check_slowdown();
  while (waitpid(child, status, WNOHANG) != child) {
    if (now() >= end) {
      kill(child, SIGKILL);
      waitpid(child, status, 0);
      return false;
    }
    check_sleep(2);
  }
  return true;
}

/* Becomes the process of one test. What that starts is in its group, and goes with it. */
static void become(const char *name, pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(2);
  char *arguments[] = {program, (char *)EXACT, (char *)name, NULL};
  execv(program, arguments);
  perror(program);
  _exit(2);
}

static bool run_in_process(const char *name) {
  fflush(NULL);
  pid_t parent = getpid(), child = fork();
  if (child == 0) become(name, parent);
  if (child < 0) {
    perror("fork");
    return false;
  }
  setpgid(child, child); /* whoever of the two is first */
  int status = 0;
  bool in_time = check_wait(child, DEADLINE, &status);
  kill(-child, SIGKILL);
  if (!in_time) {
    printf("  no end within %d s\n", DEADLINE * check_slowdown());
  } else if (WIFSIGNALED(status)) {
    printf("  ended by the signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
  } else if (WEXITSTATUS(status) != DONE && WEXITSTATUS(status) != 1) { /* a sanitizer, perhaps */
    printf("  ended with the code %d\n", WEXITSTATUS(status));
  }
  return in_time && WIFEXITED(status) && WEXITSTATUS(status) == DONE;
}

void check_run(const char *name, bool (*test)(void)) {
  bool good;
  if (only) {
    if (strcmp(name, only) != 0) return;
    good = test() && !noted;
  } else {
    if ((filter && !strstr(name, filter)) || left_out(name)) return;
    printf("%s\n", name);
    good = run_in_process(name);
    if (!good) printf("  FAILED: %s\n", name);
  }
  *(good ? &passed : &failed) += 1;
}

void check_begin(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0); /* a crash must not swallow what was said before it */
  if (argc == 3 && strcmp(argv[1], EXACT) == 0) {
    only = argv[2];
    return;
  }
  filter = argc > 1 ? argv[1] : NULL;
  ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) {
    perror("/proc/self/exe");
    exit(2);
  }
}

int check_end(void) {
  if (only) return failed == 0 && passed == 1 ? DONE : 1;
  printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
