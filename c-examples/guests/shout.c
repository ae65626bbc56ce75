/* shout: lets the host turn the input into capitals, and outputs what it made of it. */
#include "extism-pdk.h"

/* Takes the handle of a text, which the host frees, and returns that of a new one. */
EXTISM_HOST(int64_t, to_upper, (int64_t text));

EXTISM_EXPORT(shout) {
  uint64_t loud = (uint64_t)to_upper((int64_t)extism_input_block());
  extism_output_set(loud, extism_length(loud));
  return 0;
}
