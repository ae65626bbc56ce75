/*
 * Loads a plug-in, hands it a text file, and prints what came back.
 *
 * Build:  cc -o hello hello.c -lextism
 * Run:    ./hello [plugin.wasm [text-file [function]]]
 */
#include <stdio.h>
#include <stdlib.h>

#include <extism.h>

struct bytes {
  uint8_t *data;
  size_t size;
};

/* Reads a whole file, or ends the program with a message. */
static struct bytes read_file(const char *path) {
  struct bytes file = {NULL, 0};
  FILE *stream = fopen(path, "rb");
  if (!stream || fseek(stream, 0, SEEK_END) != 0) {
    perror(path);
    exit(EXIT_FAILURE);
  }
  file.size = (size_t)ftell(stream);
  file.data = malloc(file.size + 1); /* + 1: an empty file is no failure of malloc */
  rewind(stream);
  if (!file.data || fread(file.data, 1, file.size, stream) != file.size) {
    fprintf(stderr, "%s: cannot be read\n", path);
    exit(EXIT_FAILURE);
  }
  fclose(stream);
  return file;
}

int main(int argc, char **argv) {
  const char *wasm_path = argc > 1 ? argv[1] : "wasm/count_vowels.wasm";
  const char *text_path = argc > 2 ? argv[2] : "hello.txt";
  const char *function = argc > 3 ? argv[3] : "count_vowels";
  struct bytes wasm = read_file(wasm_path);
  struct bytes text = read_file(text_path);

  /* From the bytes of a module (or a manifest: see the other examples) to a plug-in. There
   * are no host functions in this one. With `true`, the plug-in may use WASI, as many
   * compilers' output does; the file system and the network stay closed to it. */
  char *errmsg = NULL;
  ExtismPlugin *plugin = extism_plugin_new(wasm.data, wasm.size, NULL, 0, true, &errmsg);
  free(wasm.data); /* the plug-in keeps nothing of what was passed */
  if (!plugin) {
    fprintf(stderr, "%s: %s\n", wasm_path, errmsg);
    extism_plugin_new_error_free(errmsg);
    return EXIT_FAILURE;
  }

  /* Bytes in ... */
  int status = EXIT_SUCCESS;
  if (extism_plugin_call(plugin, function, text.data, text.size) == EXTISM_SUCCESS) {
    /* ... bytes out. The output belongs to the plug-in, until its next call; it is no
     * string: its length counts, there is no NUL at its end. */
    fwrite(extism_plugin_output_data(plugin), 1, extism_plugin_output_length(plugin), stdout);
    putchar('\n');
  } else {
    const char *error = extism_plugin_error(plugin);
    fprintf(stderr, "%s: %s\n", function, error ? error : "failed without saying why");
    status = EXIT_FAILURE;
  }

  extism_plugin_free(plugin);
  free(text.data);
  return status;
}
