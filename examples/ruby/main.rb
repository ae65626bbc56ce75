# Calls a plug-in from Ruby, with Fiddle.
#
# The plug-in counts visits. It keeps them in a store that this program offers as two host functions,
# kv_read and kv_write (c-examples/guests/kv.c is its source).
#
#     LD_LIBRARY_PATH=target/release ruby examples/ruby/main.rb

require "fiddle/import"
require "json"

PLUGIN = File.expand_path("../../c-examples/wasm/kv.wasm", __dir__)

# The part of extism.h that this program needs. Handles are opaque: void*.
module Extism
  extend Fiddle::Importer
  dlload "libextism.so"

  typealias "size", "unsigned long long"
  typealias "handle", "unsigned long long"
  extern "void *extism_plugin_new(const char *wasm, size, void **functions, size, char with_wasi, void **errmsg)"
  extern "void extism_plugin_new_error_free(void *errmsg)"
  extern "void extism_plugin_free(void *plugin)"
  extern "int extism_plugin_call(void *plugin, const char *function, const char *data, size)"
  extern "size extism_plugin_output_length(void *plugin)"
  extern "void *extism_plugin_output_data(void *plugin)"
  extern "char *extism_plugin_error(void *plugin)"
  extern "void *extism_function_new(const char *name, void *inputs, size, void *outputs, size, void *callback, " \
         "void *user_data, void *free_user_data)"
  extern "void extism_function_free(void *function)"
  extern "void *extism_current_plugin_memory(void *plugin)"
  extern "handle extism_current_plugin_memory_alloc(void *plugin, size)"
  extern "size extism_current_plugin_memory_length(void *plugin, handle)"

  # A value takes 16 bytes: its type in the first four, the value in the last eight.
  VAL_SIZE = 16
  VALUE_AT = 8
  I64 = 1

  # Bytes travel through the plug-in's memory: a handle is an offset in it.
  def self.read_block(plugin, inputs, index)
    handle = inputs[index * VAL_SIZE + VALUE_AT, 8].unpack1("q")
    length = extism_current_plugin_memory_length(plugin, handle)
    (extism_current_plugin_memory(plugin) + handle)[0, length]
  end

  def self.write_block(plugin, data, outputs, index)
    handle = extism_current_plugin_memory_alloc(plugin, data.bytesize)
    (extism_current_plugin_memory(plugin) + handle)[0, data.bytesize] = data unless handle.zero?
    outputs[index * VAL_SIZE + VALUE_AT, 8] = [handle].pack("q")
  end

  # A host function that takes and returns handles. The block is given the plug-in, the arguments and
  # room for the results. No exception may leave it.
  class Function
    PARAMETERS = [Fiddle::TYPE_VOIDP, Fiddle::TYPE_VOIDP, Fiddle::TYPE_LONG_LONG,
                  Fiddle::TYPE_VOIDP, Fiddle::TYPE_LONG_LONG, Fiddle::TYPE_VOIDP].freeze

    attr_reader :handle

    def initialize(name, n_inputs, n_outputs)
      @callback = Fiddle::Closure::BlockCaller.new(Fiddle::TYPE_VOID, PARAMETERS) do |plugin, inputs, _, outputs, _, _|
        yield plugin, inputs, outputs
      end
      types = [I64, I64].pack("L*")
      @handle = Extism.extism_function_new(name, types, n_inputs, types, n_outputs, @callback, nil, nil)
    end
  end

  # A plug-in. It keeps the functions alive; Ruby must keep their callbacks.
  class Plugin
    def initialize(manifest, functions)
      @functions = functions
      handles = functions.map { |function| function.handle.to_i }.pack("J*")
      errmsg = Fiddle::Pointer.malloc(Fiddle::SIZEOF_VOIDP, Fiddle::RUBY_FREE)
      @handle = Extism.extism_plugin_new(manifest, manifest.bytesize, handles, functions.size, 0, errmsg)
      functions.each { |function| Extism.extism_function_free(function.handle) }
      return unless @handle.null?

      message = errmsg.ptr.to_s
      Extism.extism_plugin_new_error_free(errmsg.ptr)
      raise message
    end

    def call(function, data)
      code = Extism.extism_plugin_call(@handle, function, data, data.bytesize)
      unless code.zero?
        error = Extism.extism_plugin_error(@handle)
        raise error.null? ? "failed with code #{code}" : error.to_s
      end
      Extism.extism_plugin_output_data(@handle)[0, Extism.extism_plugin_output_length(@handle)]
    end

    def free
      Extism.extism_plugin_free(@handle)
    end
  end
end

store = {}
kv_read = Extism::Function.new("kv_read", 1, 1) do |plugin, inputs, outputs|
  value = store[Extism.read_block(plugin, inputs, 0)]
  Extism.write_block(plugin, value, outputs, 0) if value # else the result stays 0, as it came
end
kv_write = Extism::Function.new("kv_write", 2, 0) do |plugin, inputs, _|
  store[Extism.read_block(plugin, inputs, 0)] = Extism.read_block(plugin, inputs, 1)
end

plugin = Extism::Plugin.new(JSON.generate(wasm: [{ path: PLUGIN }]), [kv_read, kv_write])
begin
  ["Ada", "Grace", "Ada", ""].each { |visitor| puts "#{visitor}: visit #{plugin.call("visit", visitor)}" }
rescue RuntimeError => error
  puts "error: #{error.message}"
ensure
  plugin.free
end
puts "the host keeps: " + store.sort.map { |key, value| "#{key}=#{value}" }.join(" ")
