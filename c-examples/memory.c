/*
 * The memory that host and plug-in share: blocks, handles, and how long an output lives.
 *
 * Build:  cc -o memory memory.c -lextism
 * Run:    ./memory
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <extism.h>

/*
 * to_upper(text) -> a new text, in capitals
 *
 * A handle is the offset of a block in the plug-in's Extism memory, 0 for none. The functions
 * extism_current_plugin_* work on that memory while a host function runs, and only then.
 */
static void to_upper(ExtismCurrentPlugin *plugin, const ExtismVal *inputs, ExtismSize n_inputs,
                     ExtismVal *outputs, ExtismSize n_outputs, void *user_data) {
  (void)n_inputs, (void)n_outputs, (void)user_data;

  /* How long a block is the library knows by itself: a plug-in cannot lie about it. What is
   * no block has length 0. */
  ExtismMemoryHandle text = (ExtismMemoryHandle)inputs[0].v.i64;
  ExtismSize length = extism_current_plugin_memory_length(plugin, text);

  /* A new block; 0 if the length is 0, or if the plug-in has used up what it may use. */
  ExtismMemoryHandle loud = extism_current_plugin_memory_alloc(plugin, length);
  outputs[0].v.i64 = (int64_t)loud;
  if (loud == 0) return;

  /* A block begins at the base address plus its handle. */
  uint8_t *memory = extism_current_plugin_memory(plugin);
  for (ExtismSize i = 0; i < length; i++) {
    memory[loud + i] = (uint8_t)toupper(memory[text + i]);
  }

  /* This plug-in leaves its text to us. After free, the handle names nothing. (Without it
   * the block would go before the next call: the library then frees all of them.) */
  extism_current_plugin_memory_free(plugin, text);
  printf("  host: a block of %d bytes, after free of %d\n", (int)length,
         (int)extism_current_plugin_memory_length(plugin, text));
}

static void print_output(const char *what, ExtismPlugin *plugin) {
  printf("%s: \"%.*s\", %d bytes\n", what, (int)extism_plugin_output_length(plugin),
         (const char *)extism_plugin_output_data(plugin),
         (int)extism_plugin_output_length(plugin));
}

static void shout(ExtismPlugin *plugin, const char *text) {
  if (extism_plugin_call(plugin, "shout", (const uint8_t *)text, strlen(text)) != EXTISM_SUCCESS) {
    const char *error = extism_plugin_error(plugin);
    fprintf(stderr, "shout: %s\n", error ? error : "failed without saying why");
    exit(EXIT_FAILURE);
  }
}

int main(void) {
  const ExtismValType handle[] = {EXTISM_PTR};
  ExtismFunction *function =
      extism_function_new("to_upper", handle, 1, handle, 1, to_upper, NULL, NULL);
  const ExtismFunction *functions[] = {function};

  const char *manifest = "{\"wasm\": [{\"path\": \"wasm/shout.wasm\"}]}";
  char *errmsg = NULL;
  ExtismPlugin *plugin =
      extism_plugin_new((const uint8_t *)manifest, strlen(manifest), functions, 1, false, &errmsg);
  extism_function_free(function);
  if (!plugin) {
    fprintf(stderr, "%s\n", errmsg);
    extism_plugin_new_error_free(errmsg);
    return EXIT_FAILURE;
  }

  /* The output stays in the plug-in's memory: reading it copies nothing. The pointer is good
   * until the plug-in's next call, reset or free; what must live longer has to be copied. */
  shout(plugin, "hello");
  print_output("first call", plugin);
  char copy[6] = "";
  if (extism_plugin_output_length(plugin) < sizeof copy) {
    memcpy(copy, extism_plugin_output_data(plugin), extism_plugin_output_length(plugin));
  }

  shout(plugin, "goodbye");
  print_output("second call", plugin);
  printf("the copy of the first: \"%s\"\n", copy);

  /* Between two calls a plug-in holds its last input and output. A large one that will rest
   * for a while can be told to give them back. */
  extism_plugin_reset(plugin);
  print_output("after reset", plugin);

  extism_plugin_free(plugin);
  return EXIT_SUCCESS;
}
