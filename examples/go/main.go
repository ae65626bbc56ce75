// Calls a plug-in from Go, with cgo.
//
// The plug-in counts visits. It keeps them in a store that this program offers as two host functions,
// kv_read and kv_write (c-examples/guests/kv.c is its source).
//
//	cd examples/go
//	export CGO_CFLAGS=-I$PWD/../../include CGO_LDFLAGS=-L$PWD/../../target/release
//	LD_LIBRARY_PATH=../../target/release go run .
package main

/*
#cgo LDFLAGS: -lextism
#include <stdlib.h>
#include <extism.h>

EXTISM_GO_FUNCTION(kvRead);
EXTISM_GO_FUNCTION(kvWrite);

// Go's `unsafe.Pointer` must not hold a plain number, C's `void *` may.
static inline ExtismFunction *new_function(const char *name, const ExtismValType *types, ExtismSize n_inputs,
                                           ExtismSize n_outputs, void *callback, uintptr_t data) {
  return extism_function_new(name, types, n_inputs, types, n_outputs, (ExtismFunctionType)callback,
                             (void *)data, NULL);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime/cgo"
	"sort"
	"unsafe"
)

const pluginPath = "../../c-examples/wasm/kv.wasm"

type store map[string]string

// Bytes travel through the plug-in's memory: a handle is an offset in it.
func readBlock(plugin *C.ExtismCurrentPlugin, val *C.ExtismVal) string {
	handle := *(*C.ExtismMemoryHandle)(unsafe.Pointer(&val.v))
	length := C.extism_current_plugin_memory_length(plugin, handle)
	base := unsafe.Pointer(C.extism_current_plugin_memory(plugin))
	return C.GoStringN((*C.char)(unsafe.Add(base, handle)), C.int(length))
}

func writeBlock(plugin *C.ExtismCurrentPlugin, text string, val *C.ExtismVal) {
	handle := C.extism_current_plugin_memory_alloc(plugin, C.ExtismSize(len(text)))
	if handle != 0 {
		base := unsafe.Pointer(C.extism_current_plugin_memory(plugin))
		copy(unsafe.Slice((*byte)(unsafe.Add(base, handle)), len(text)), text)
	}
	*(*C.ExtismMemoryHandle)(unsafe.Pointer(&val.v)) = handle
}

// The host functions. C code may hold no pointer to Go's memory, so their user data is a cgo.Handle: a
// number that stands for the store. A panic must not leave them.

//export kvRead
func kvRead(plugin unsafe.Pointer, inputs *C.ExtismVal, nInputs C.ExtismSize,
	outputs *C.ExtismVal, nOutputs C.ExtismSize, data C.uintptr_t) {
	current := (*C.ExtismCurrentPlugin)(plugin)
	if value, found := cgo.Handle(data).Value().(store)[readBlock(current, inputs)]; found {
		writeBlock(current, value, outputs)
	} // else the result stays 0, as it came
}

//export kvWrite
func kvWrite(plugin unsafe.Pointer, inputs *C.ExtismVal, nInputs C.ExtismSize,
	outputs *C.ExtismVal, nOutputs C.ExtismSize, data C.uintptr_t) {
	current, args := (*C.ExtismCurrentPlugin)(plugin), unsafe.Slice(inputs, nInputs)
	cgo.Handle(data).Value().(store)[readBlock(current, &args[0])] = readBlock(current, &args[1])
}

func newFunction(name string, nInputs, nOutputs int, callback unsafe.Pointer, data cgo.Handle) *C.ExtismFunction {
	cName := C.CString(name)
	defer C.free(unsafe.Pointer(cName))
	types := []C.ExtismValType{C.EXTISM_PTR, C.EXTISM_PTR}
	return C.new_function(cName, &types[0], C.ExtismSize(nInputs), C.ExtismSize(nOutputs), callback, C.uintptr_t(data))
}

// newPlugin makes a plug-in, which from then on keeps the functions alive.
func newPlugin(manifest string, functions []*C.ExtismFunction) (*C.ExtismPlugin, error) {
	wasm := C.CBytes([]byte(manifest))
	defer C.free(wasm)
	var errmsg *C.char
	plugin := C.extism_plugin_new((*C.uint8_t)(wasm), C.ExtismSize(len(manifest)), &functions[0],
		C.ExtismSize(len(functions)), false, &errmsg)
	for _, function := range functions {
		C.extism_function_free(function)
	}
	if plugin == nil {
		defer C.extism_plugin_new_error_free(errmsg)
		return nil, errors.New(C.GoString(errmsg))
	}
	return plugin, nil
}

func call(plugin *C.ExtismPlugin, function, input string) (string, error) {
	name, data := C.CString(function), C.CString(input)
	defer C.free(unsafe.Pointer(name))
	defer C.free(unsafe.Pointer(data))
	code := C.extism_plugin_call(plugin, name, (*C.uint8_t)(unsafe.Pointer(data)), C.ExtismSize(len(input)))
	if code != C.EXTISM_SUCCESS {
		if message := C.extism_plugin_error(plugin); message != nil {
			return "", errors.New(C.GoString(message))
		}
		return "", fmt.Errorf("failed with code %d", code)
	}
	output := unsafe.Pointer(C.extism_plugin_output_data(plugin))
	return C.GoStringN((*C.char)(output), C.int(C.extism_plugin_output_length(plugin))), nil
}

func run() error {
	kept := store{}
	data := cgo.NewHandle(kept)
	defer data.Delete() // runs last: after the plug-in, nothing uses it

	plugin, err := newPlugin(fmt.Sprintf(`{"wasm": [{"path": %q}]}`, pluginPath), []*C.ExtismFunction{
		newFunction("kv_read", 1, 1, C.kvRead, data),
		newFunction("kv_write", 2, 0, C.kvWrite, data),
	})
	if err != nil {
		return err
	}
	defer C.extism_plugin_free(plugin)

	for _, visitor := range []string{"Ada", "Grace", "Ada", ""} {
		visits, err := call(plugin, "visit", visitor)
		if err != nil {
			fmt.Println("error:", err)
			continue
		}
		fmt.Printf("%s: visit %s\n", visitor, visits)
	}

	keys := make([]string, 0, len(kept))
	for key := range kept {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	fmt.Print("the host keeps:")
	for _, key := range keys {
		fmt.Printf(" %s=%s", key, kept[key])
	}
	fmt.Println()
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
