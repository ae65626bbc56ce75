/* The whole test framework: a test is a `static bool test_x(void)` whose CHECKs hold.
 *
 *     int main(int argc, char **argv) {
 *       check_begin(argc, argv);
 *       RUN(test_x);
 *       return check_end();
 *     }
 *
 * A program runs all of its tests, or those whose names contain its first argument. */
#ifndef CHECK_H
#define CHECK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *check_filter;
static int check_passed, check_failed;
static atomic_bool check_noted;

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
      check_noted = true;                                                   \
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

#define RUN(TEST) check_run(#TEST, TEST)

static inline void check_run(const char *name, bool (*test)(void)) {
  if (check_filter && !strstr(name, check_filter)) return;
  printf("%s\n", name);
  check_noted = false;
  if (test() && !check_noted) {
    check_passed++;
  } else {
    check_failed++;
    printf("  FAILED: %s\n", name);
  }
}

static inline void check_begin(int argc, char **argv) {
  check_filter = argc > 1 ? argv[1] : NULL;
  setvbuf(stdout, NULL, _IOLBF, 0); /* a crash must not swallow the name of its test */
}

static inline int check_end(void) {
  printf("%d passed, %d failed\n", check_passed, check_failed);
  return check_failed == 0 ? 0 : 1;
}

#endif
