/*
 * Offers two functions to a plug-in: a small key-value store that lives in the host.
 *
 * Build:  cc -o host_function host_function.c -lextism
 * Run:    ./host_function
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <extism.h>

/* The store: what both functions get as their user data. */
struct store {
  struct {
    char key[32], value[32];
  } pairs[16];
  size_t count;
};

/* Copies the text of a block into a buffer. What a plug-in passes is input, not truth: the
 * length of a handle that names no block is 0, and too long a text is cut. */
static void read_block(ExtismCurrentPlugin *plugin, const ExtismVal *handle, char text[32]) {
  ExtismMemoryHandle block = (ExtismMemoryHandle)handle->v.i64;
  ExtismSize length = extism_current_plugin_memory_length(plugin, block);
  if (length > 31) length = 31;
  if (length > 0) memcpy(text, extism_current_plugin_memory(plugin) + block, length);
  text[length] = '\0';
}

/* Where the key is, or where it would go: `count` if it is not there yet. */
static size_t find(const struct store *store, const char *key) {
  size_t i = 0;
  while (i < store->count && strcmp(store->pairs[i].key, key) != 0) i++;
  return i;
}

/* kv_read(key) -> value, or 0 */
static void kv_read(ExtismCurrentPlugin *plugin, const ExtismVal *inputs, ExtismSize n_inputs,
                    ExtismVal *outputs, ExtismSize n_outputs, void *user_data) {
  struct store *store = user_data;
  char key[32];
  (void)n_inputs, (void)n_outputs; /* always 1 and 1: see main */

  read_block(plugin, &inputs[0], key);
  size_t at = find(store, key);
  outputs[0].v.i64 = 0;
  if (at == store->count) return;

  size_t length = strlen(store->pairs[at].value);
  ExtismMemoryHandle block = extism_current_plugin_memory_alloc(plugin, length);
  if (block == 0) return;
  memcpy(extism_current_plugin_memory(plugin) + block, store->pairs[at].value, length);
  outputs[0].v.i64 = (int64_t)block;
}

/* kv_write(key, value) */
static void kv_write(ExtismCurrentPlugin *plugin, const ExtismVal *inputs, ExtismSize n_inputs,
                     ExtismVal *outputs, ExtismSize n_outputs, void *user_data) {
  struct store *store = user_data;
  char key[32];
  (void)n_inputs, (void)outputs, (void)n_outputs;

  read_block(plugin, &inputs[0], key);
  size_t at = find(store, key);
  if (at == sizeof store->pairs / sizeof store->pairs[0]) return; /* full */
  if (at == store->count) strcpy(store->pairs[store->count++].key, key);
  read_block(plugin, &inputs[1], store->pairs[at].value);
  printf("  host: %s = %s\n", key, store->pairs[at].value);
}

/* Called once, when nothing can call the functions any more. */
static void free_store(void *store) {
  printf("the store goes\n");
  free(store);
}

int main(void) {
  struct store *store = calloc(1, sizeof *store);
  if (!store) return EXIT_FAILURE;

  /* A handle is an i64 to the plug-in. These types are compared with what the plug-in imports
   * when it is created, so that no call can come with others. Both functions share their user
   * data; they go together, and one of them frees it. */
  const ExtismValType one[] = {EXTISM_PTR}, two[] = {EXTISM_PTR, EXTISM_PTR};
  ExtismFunction *read = extism_function_new("kv_read", one, 1, one, 1, kv_read, store, NULL);
  ExtismFunction *write =
      extism_function_new("kv_write", two, 2, NULL, 0, kv_write, store, free_store);
  const ExtismFunction *functions[] = {read, write};

  const char *manifest = "{\"wasm\": [{\"path\": \"wasm/kv.wasm\"}]}";
  char *errmsg = NULL;
  ExtismPlugin *plugin =
      extism_plugin_new((const uint8_t *)manifest, strlen(manifest), functions, 2, false, &errmsg);
  extism_function_free(read); /* the plug-in keeps them for as long as it needs them */
  extism_function_free(write);
  if (!plugin) {
    fprintf(stderr, "%s\n", errmsg);
    extism_plugin_new_error_free(errmsg);
    return EXIT_FAILURE;
  }

  const char *visitors[] = {"Ada", "Grace", "Ada", ""};
  for (int i = 0; i < 4; i++) {
    const char *name = visitors[i];
    printf("%s visits\n", name[0] ? name : "nobody");
    if (extism_plugin_call(plugin, "visit", (const uint8_t *)name, strlen(name)) == 0) {
      printf("  visit number %.*s\n", (int)extism_plugin_output_length(plugin),
             (const char *)extism_plugin_output_data(plugin));
    } else {
      printf("  error: %s\n", extism_plugin_error(plugin));
    }
  }

  extism_plugin_free(plugin);
  return EXIT_SUCCESS;
}
