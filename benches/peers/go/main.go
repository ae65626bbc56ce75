// The Go SDK on wazero, in the words of benches/worker: main METRIC [KEY=VALUE...]
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	extism "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero"
)

var errUnsupported = errors.New("unsupported")

type options struct {
	file, call, text string
	size, count      int
	timeout          uint64
	wasi             bool
	wasm, input      []byte
}

func readOptions(words []string) (*options, error) {
	o := &options{call: "empty", count: 1}
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		number, _ := strconv.Atoi(value)
		switch key {
		case "file":
			o.file = value
		case "call":
			o.call = value
		case "text":
			o.text = value
		case "size":
			o.size = number
		case "count":
			o.count = number
		case "timeout_ms":
			o.timeout = uint64(number)
		case "wasi":
			o.wasi = number != 0
		}
	}
	o.input = []byte(o.text)
	if o.text == "" {
		o.input = bytes.Repeat([]byte("Hello, World! "), o.size/14+1)[:o.size]
	}
	var err error
	o.wasm, err = os.ReadFile(o.file)
	return o, err
}

// One cache for the process: what was compiled before is not compiled again.
var cache = wazero.NewCompilationCache()

var background = context.Background()

// What the guest told with `tick`, the last time and the time before.
var lastTick, tickBefore time.Time

func functions() []extism.HostFunction {
	i64 := []extism.ValueType{extism.ValueTypeI64}
	tick := func(context.Context, *extism.CurrentPlugin, []uint64) { tickBefore, lastTick = lastTick, time.Now() }
	addOne := func(_ context.Context, _ *extism.CurrentPlugin, stack []uint64) { stack[0]++ }
	useBlock := func(ctx context.Context, plugin *extism.CurrentPlugin, stack []uint64) {
		block, err := plugin.AllocWithContext(ctx, stack[0])
		if err != nil {
			panic(err)
		}
		length, err := plugin.LengthWithContext(ctx, block)
		if err != nil {
			panic(err)
		}
		plugin.Memory().WriteByte(uint32(block), 1)
		if err := plugin.FreeWithContext(ctx, block); err != nil {
			panic(err)
		}
		stack[0] = length
	}
	return []extism.HostFunction{
		extism.NewHostFunctionWithStack("tick", tick, nil, nil),
		extism.NewHostFunctionWithStack("add_one", addOne, i64, i64),
		extism.NewHostFunctionWithStack("use_block", useBlock, i64, i64),
	}
}

func compiled(o *options, wasm []byte) (*extism.CompiledPlugin, error) {
	manifest := extism.Manifest{
		Wasm:    []extism.Wasm{extism.WasmData{Data: wasm}},
		Config:  map[string]string{"key": "12345678"},
		Timeout: o.timeout,
	}
	config := extism.PluginConfig{EnableWasi: o.wasi, RuntimeConfig: wazero.NewRuntimeConfig().WithCompilationCache(cache)}
	return extism.NewCompiledPlugin(background, manifest, config, functions())
}

func instance(o *options, from *extism.CompiledPlugin) (*extism.Plugin, error) {
	plugin, err := from.Instance(background, extism.PluginInstanceConfig{})
	if err != nil {
		return nil, err
	}
	return plugin, call(plugin, o.call, o.input)
}

func call(plugin *extism.Plugin, name string, input []byte) error {
	if name == "" {
		return nil
	}
	code, _, err := plugin.Call(name, input)
	if err == nil && code != 0 {
		err = fmt.Errorf("a call ended with %d", code)
	}
	return err
}

func calls(plugin *extism.Plugin, o *options, iterations int) error {
	for range iterations {
		if err := call(plugin, o.call, o.input); err != nil {
			return err
		}
	}
	return nil
}

// A custom section that no other module has had, behind this one.
func distinct(wasm []byte) []byte {
	label := fmt.Sprint(os.Getpid(), time.Now().UnixNano())
	head := []byte{0, byte(len(label) + 2), 1, 'n'}
	return append(append(bytes.Clone(wasm), head...), label...)
}

type measure func(iterations int) (float64, error)

func nanoseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) }

// From bytes to the first result.
func first(o *options, bytes func() []byte) measure {
	return func(iterations int) (float64, error) {
		var total time.Duration
		for range iterations {
			wasm := bytes()
			begin := time.Now()
			from, err := compiled(o, wasm)
			if err != nil {
				return 0, err
			}
			if _, err = instance(o, from); err != nil {
				return 0, err
			}
			total += time.Since(begin)
			from.Close(background)
		}
		return nanoseconds(total), nil
	}
}

func metric(name string, o *options) (measure, error) {
	same := func() []byte { return o.wasm }
	switch name {
	case "first":
		return first(o, same), nil
	case "again":
		again := first(o, same)
		_, err := again(1)
		return again, err
	case "never":
		return first(o, func() []byte { return distinct(o.wasm) }), nil
	}
	from, err := compiled(o, o.wasm)
	if err != nil {
		return nil, err
	}
	switch name {
	case "call":
		plugin, err := instance(o, from)
		return func(iterations int) (float64, error) {
			begin := time.Now()
			err := calls(plugin, o, iterations)
			return nanoseconds(time.Since(begin)), err
		}, err
	case "loop":
		plugin, err := from.Instance(background, extism.PluginInstanceConfig{})
		return func(iterations int) (float64, error) {
			numbers := binary.LittleEndian.AppendUint64(nil, uint64(iterations))
			numbers = binary.LittleEndian.AppendUint64(numbers, uint64(o.count))
			err := call(plugin, o.call, numbers)
			return nanoseconds(lastTick.Sub(tickBefore)), err
		}, err
	case "new":
		return func(iterations int) (float64, error) {
			var total time.Duration
			for range iterations {
				begin := time.Now()
				plugin, err := instance(o, from)
				if err != nil {
					return 0, err
				}
				total += time.Since(begin)
				plugin.Close(background)
			}
			return nanoseconds(total), nil
		}, nil
	case "scaling":
		return scaling(o, from)
	}
	return nil, errUnsupported
}

// Calls per second of all goroutines, as a multiple of those of one.
func scaling(o *options, from *extism.CompiledPlugin) (measure, error) {
	var plugins []*extism.Plugin
	for range o.count {
		plugin, err := instance(o, from)
		if err != nil {
			return nil, err
		}
		plugins = append(plugins, plugin)
	}
	run := func(plugins []*extism.Plugin, iterations int) (float64, error) {
		var group sync.WaitGroup
		results := make([]error, len(plugins))
		begin := time.Now()
		for i, plugin := range plugins {
			group.Add(1)
			go func() {
				defer group.Done()
				results[i] = calls(plugin, o, iterations)
			}()
		}
		group.Wait()
		return nanoseconds(time.Since(begin)), errors.Join(results...)
	}
	return func(iterations int) (float64, error) {
		one, err := run(plugins[:1], iterations)
		if err != nil {
			return 0, err
		}
		all, err := run(plugins, iterations)
		return float64(len(plugins)) * one / all, err
	}, nil
}

func run() error {
	if len(os.Args) < 2 {
		return errors.New("main METRIC [KEY=VALUE...]")
	}
	o, err := readOptions(os.Args[2:])
	if err != nil {
		return err
	}
	measure, err := metric(os.Args[1], o)
	if err != nil {
		return err
	}
	fmt.Println("ready Go")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		iterations, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		value, err := measure(iterations)
		if err != nil {
			return err
		}
		fmt.Printf("%.3f\n", value)
	}
	return nil
}

func main() {
	if err := run(); errors.Is(err, errUnsupported) {
		fmt.Println("unsupported")
		os.Exit(1)
	} else if err != nil {
		fmt.Println("error", strings.SplitN(err.Error(), "\n", 2)[0])
		os.Exit(1)
	}
}
