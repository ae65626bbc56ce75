/* The whole test framework: a test is a `static bool test_x(void)` whose CHECKs hold.
 *
 *     int main(int argc, char **argv) {
 *       check_begin(argc, argv);
 *       RUN(test_x);
 *       return check_end();
 *     }
 *
 * A program runs all of its tests, or those whose names contain its first argument. Each of them
 * has a process of its own, in which the library is fresh, and a deadline: a crash or a hang is one
 * failed test. EXTISM_TEST_SLOWDOWN multiplies the deadline.
 *
 * That process is the program once more, with `--exact NAME`. Tools that watch a process have to
 * follow it (valgrind: --trace-children=yes), or are given such a command line (debuggers). */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

void check_begin(int argc, char **argv);
void check_run(const char *name, bool (*test)(void));
int check_end(void);
void check_note(void);

/* How much slower than usual this machine is: the environment's EXTISM_TEST_SLOWDOWN, else 1. */
int check_slowdown(void);

void check_sleep(int milliseconds);

/* Waits for a child, but not longer than these seconds (times the slowdown): then it is killed, and
 * this is false. */
bool check_wait(pid_t child, int seconds, int *status);

#ifdef __cplusplus
}
#endif

#define RUN(TEST) check_run(#TEST, TEST)

#define CHECK(CONDITION)                                                    \
  do {                                                                      \
    if (!(CONDITION)) {                                                     \
      printf("  %s:%d: not true: %s\n", __FILE__, __LINE__, #CONDITION);    \
      return false;                                                         \
    }                                                                       \
  } while (0)

/* For callbacks and other threads, which cannot end the test: it goes on, and fails. */
#define NOTE(CONDITION)                                                     \
  do {                                                                      \
    if (!(CONDITION)) {                                                     \
      printf("  %s:%d: not true: %s\n", __FILE__, __LINE__, #CONDITION);    \
      check_note();                                                        \
    }                                                                       \
  } while (0)

/* CHECK for a comparison of integers, and of strings (NULL differs from any): these say
 * what there was instead. */
#define CHECK_INT(ACTUAL, EXPECTED)                                                     \
  do {                                                                                  \
    long long actual_ = (long long)(ACTUAL), expected_ = (long long)(EXPECTED);         \
    if (actual_ != expected_) {                                                         \
      printf("  %s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #ACTUAL, actual_,   \
             expected_);                                                                \
      return false;                                                                     \
    }                                                                                   \
  } while (0)

#define CHECK_TEXT(ACTUAL, EXPECTED)                                                    \
  do {                                                                                  \
    const char *actual_ = (ACTUAL), *expected_ = (EXPECTED);                            \
    if (!actual_ || strcmp(actual_, expected_) != 0) {                                  \
      printf("  %s:%d: %s is \"%s\", not \"%s\"\n", __FILE__, __LINE__, #ACTUAL,        \
             actual_ ? actual_ : "(NULL)", expected_);                                  \
      return false;                                                                     \
    }                                                                                   \
  } while (0)

#define CHECK_CONTAINS(ACTUAL, PART)                                                    \
  do {                                                                                  \
    const char *actual_ = (ACTUAL), *part_ = (PART);                                    \
    if (!actual_ || !strstr(actual_, part_)) {                                          \
      printf("  %s:%d: %s is \"%s\", without \"%s\"\n", __FILE__, __LINE__, #ACTUAL,    \
             actual_ ? actual_ : "(NULL)", part_);                                      \
      return false;                                                                     \
    }                                                                                   \
  } while (0)

#endif
