import com.dylibso.chicory.wasi.WasiOptions;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.extism.sdk.chicory.ExtismHostFunction;
import org.extism.sdk.chicory.ExtismValType;
import org.extism.sdk.chicory.Manifest;
import org.extism.sdk.chicory.ManifestWasm;
import org.extism.sdk.chicory.Plugin;

/** Chicory with its compiler, in the words of benches/worker: Main METRIC [KEY=VALUE...] */
public final class Main {
  static final class Unsupported extends Exception {}

  interface Measure {
    double run(long iterations) throws Exception;
  }

  private static long lastTick, tickBefore, serial;

  private final Map<String, String> options = new HashMap<>();
  private final byte[] wasm;
  private final byte[] input;

  private Main(String[] words) throws Exception {
    for (String word : words) {
      int at = word.indexOf('=');
      if (at >= 0) options.put(word.substring(0, at), word.substring(at + 1));
    }
    wasm = Files.readAllBytes(Path.of(options.get("file")));
    String text = options.get("text");
    int size = Integer.parseInt(options.getOrDefault("size", "0"));
    input = text != null ? text.getBytes(StandardCharsets.UTF_8) : new byte[size];
    byte[] pattern = "Hello, World! ".getBytes(StandardCharsets.US_ASCII);
    if (text == null) for (int i = 0; i < size; i++) input[i] = pattern[i % pattern.length];
  }

  private String export() {
    return options.getOrDefault("call", "empty");
  }

  private int count() {
    return Integer.parseInt(options.getOrDefault("count", "1"));
  }

  private static ExtismHostFunction[] functions() {
    List<ExtismValType> none = List.of(), one = List.of(ExtismValType.I64);
    return new ExtismHostFunction[] {
      ExtismHostFunction.of("tick", none, none, (plugin, args, results) -> {
        tickBefore = lastTick;
        lastTick = System.nanoTime();
      }),
      ExtismHostFunction.of("add_one", one, one, (plugin, args, results) -> results.setLong(0, args.getLong(0) + 1)),
      ExtismHostFunction.of("use_block", one, one, (plugin, args, results) -> {
        throw new UnsupportedOperationException("it has no free");
      }),
    };
  }

  private Plugin plugin(byte[] bytes) {
    Manifest.Options settings = new Manifest.Options().withAoT().withConfig(Map.of("key", "12345678"));
    if (options.getOrDefault("wasi", "0").equals("1")) settings.withWasi(WasiOptions.builder().build());
    Manifest manifest = Manifest.ofWasms(ManifestWasm.fromBytes(bytes).build()).withOptions(settings).build();
    return Plugin.ofManifest(manifest).withHostFunctions(functions()).build();
  }

  private Plugin first(byte[] bytes) {
    Plugin plugin = plugin(bytes);
    if (!export().isEmpty()) plugin.call(export(), input);
    return plugin;
  }

  /** A custom section that no other module has had, behind this one. */
  private byte[] distinct() {
    String label = ProcessHandle.current().pid() + " " + System.nanoTime() + " " + serial++;
    byte[] bytes = label.getBytes(StandardCharsets.US_ASCII);
    byte[] copy = Arrays.copyOf(wasm, wasm.length + bytes.length + 4);
    copy[wasm.length + 1] = (byte) (bytes.length + 2);
    copy[wasm.length + 2] = 1;
    copy[wasm.length + 3] = 'n';
    System.arraycopy(bytes, 0, copy, wasm.length + 4, bytes.length);
    return copy;
  }

  private double calls(Plugin plugin, long iterations) {
    String export = export();
    long begin = System.nanoTime();
    for (long i = 0; i < iterations; i++) plugin.call(export, input);
    return System.nanoTime() - begin;
  }

  private Measure firsts(boolean distinct) {
    return iterations -> {
      long total = 0;
      for (long i = 0; i < iterations; i++) {
        byte[] bytes = distinct ? distinct() : wasm;
        long begin = System.nanoTime();
        first(bytes);
        total += System.nanoTime() - begin;
      }
      return total;
    };
  }

  private double threads(List<Plugin> plugins, long iterations) throws Exception {
    List<Thread> threads = new ArrayList<>();
    for (Plugin plugin : plugins) threads.add(new Thread(() -> calls(plugin, iterations)));
    long begin = System.nanoTime();
    for (Thread thread : threads) thread.start();
    for (Thread thread : threads) thread.join();
    return System.nanoTime() - begin;
  }

  private Measure metric(String name) throws Exception {
    switch (name) {
      case "call": {
        Plugin plugin = first(wasm);
        return iterations -> calls(plugin, iterations);
      }
      case "loop": {
        if (export().equals("use_block")) throw new Unsupported();
        Plugin plugin = plugin(wasm);
        return iterations -> {
          ByteBuffer numbers = ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN);
          numbers.putLong(iterations).putLong(count());
          plugin.call(export(), numbers.array());
          return lastTick - tickBefore;
        };
      }
      case "first":
        return firsts(false);
      case "again":
        first(wasm);
        return firsts(false);
      case "never":
        return firsts(true);
      case "scaling": {
        List<Plugin> plugins = new ArrayList<>();
        for (int i = 0; i < count(); i++) plugins.add(first(wasm));
        return iterations -> {
          double one = threads(plugins.subList(0, 1), iterations);
          return plugins.size() * one / threads(plugins, iterations);
        };
      }
      default:
        throw new Unsupported();
    }
  }

  public static void main(String[] words) throws Exception {
    try {
      Measure measure = new Main(words).metric(words[0]);
      System.out.println("ready Chicory");
      BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        System.out.println(String.format(Locale.ROOT, "%.3f", measure.run(Long.parseLong(line))));
      }
    } catch (Unsupported none) {
      System.out.println("unsupported");
      System.exit(1);
    } catch (Exception | LinkageError problem) {
      System.out.println("error " + String.valueOf(problem).split("\n")[0]);
      System.exit(1);
    }
    System.exit(0);
  }
}
