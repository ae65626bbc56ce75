/* count_vowels: counts the letters a, e, i, o and u in the input; outputs {"count":N}. */
#include "extism-pdk.h"

static int is_vowel(uint8_t letter) {
  switch (letter | 0x20) { /* an ASCII letter differs from its capital in this bit alone */
    case 'a': case 'e': case 'i': case 'o': case 'u': return 1;
    default: return 0;
  }
}

EXTISM_EXPORT(count_vowels) {
  uint64_t length = extism_input_length(), at = 0, count = 0;

  /* Eight bytes at a time, and the last few one by one. */
  for (; length - at >= 8; at += 8) {
    for (uint64_t word = extism_input_load_u64(at); word; word >>= 8) {
      count += is_vowel((uint8_t)word);
    }
  }
  for (; at < length; at++) count += is_vowel((uint8_t)extism_input_load_u8(at));

  char json[32] = "{\"count\":";
  uint64_t end = 9;
  end += extism_decimal(json + end, count);
  json[end++] = '}';
  extism_output(json, end);
  return 0;
}
