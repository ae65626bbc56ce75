/* visit: counts the visits of the guest that the input names, in a store of the host's. */
#include "extism-pdk.h"

/* Both take handles. kv_read returns the handle of the value, or 0 if the key is new. */
EXTISM_HOST(int64_t, kv_read, (int64_t key));
EXTISM_HOST(void, kv_write, (int64_t key, int64_t value));

EXTISM_EXPORT(visit) {
  uint64_t name = extism_input_block();
  if (!name) return extism_fail("who is visiting?");

  uint64_t visits = 1;
  uint64_t before = (uint64_t)kv_read((int64_t)name);
  if (before) { /* the host stores bytes; what they mean is the plug-in's business */
    uint64_t number = 0;
    for (uint64_t i = 0; i < extism_length(before); i++) {
      number = 10 * number + (extism_load_u8(before + i) - '0');
    }
    visits = number + 1;
  }

  char text[20];
  uint64_t digits = extism_decimal(text, visits);
  uint64_t value = extism_store(text, digits);
  kv_write((int64_t)name, (int64_t)value);
  extism_output_set(value, digits);
  return 0;
}
