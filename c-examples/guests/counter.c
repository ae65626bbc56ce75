/* A plug-in with a state of its own: its variables live as long as the plug-in. */
#include "extism-pdk.h"

static uint64_t counter;

/* next: counts on by one and outputs the new number. */
EXTISM_EXPORT(next) {
  char text[20];
  counter++;
  extism_output(text, extism_decimal(text, counter));
  return 0;
}

/* forever: never returns. A host ends it with a timeout, or cancels it. */
EXTISM_EXPORT(forever) {
  for (;;) {}
}
