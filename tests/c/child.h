/* Forks in tests. */
#ifndef CHILD_H
#define CHILD_H

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <extism.h>

#include "check.h"

/* What a child says: its exit code, 1000 and its signal, or 2000 if it did not end in time and was
 * killed. */
static inline int outcome_of(pid_t child) {
  int status;
  if (!check_wait(child, 30, &status)) return 2000;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* Runs BODY in a child. It is 0 if all is well. */
#define IN_CHILD(BODY)                  \
  do {                                  \
    fflush(NULL);                       \
    pid_t child_ = fork();              \
    if (child_ == 0) _exit(BODY);       \
    CHECK_INT(outcome_of(child_), 0);   \
  } while (0)

/* CHECK in what runs in a child. */
#define REQUIRE(CONDITION)                                                              \
  do {                                                                                  \
    if (!(CONDITION)) {                                                                 \
      fprintf(stderr, "  in the child, %s:%d: not true: %s (%s)\n", __FILE__, __LINE__, \
              #CONDITION, extism_last_error() ? extism_last_error() : "no error");      \
      return 1;                                                                         \
    }                                                                                   \
  } while (0)

#endif
