//! What bare wasmtime needs for the things that the benchmarks measure: no library over it can need less.
//!
//! `bench-floor METRIC [KEY=VALUE...]` speaks as benches/worker does, with the options that matter here.
//! `bench-floor assemble TEXT BINARY` turns WebAssembly text into a binary module, for hosts that take no text.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use wasmtime::{
    Caller, Config, Engine, FuncType, Instance, InstancePre, Linker, Memory, Module, Store, Strategy, TypedFunc,
    ValRaw, ValType,
};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const GUEST: &str = include_str!("../guest.wat");

/// Where the guest expects its input.
const INPUT: u64 = 16;

struct Options {
    file: PathBuf,
    call: String,
    size: usize,
    count: usize,
    /// Instances come from a pool.
    pool: bool,
}

impl Options {
    fn read(arguments: &[String]) -> Result<Self> {
        let mut options = Self { file: PathBuf::new(), call: "empty".into(), size: 0, count: 1, pool: false };
        for argument in arguments {
            match argument.split_once('=').ok_or("an option is not KEY=VALUE")? {
                ("file", value) => options.file = value.into(),
                ("call", value) => options.call = value.into(),
                ("size", value) => options.size = value.parse()?,
                ("count", value) => options.count = value.parse()?,
                ("pool", value) => options.pool = value == "1",
                _ => {}
            }
        }
        Ok(options)
    }
}

/// As the library configures its engines.
fn config() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true).memory_reservation(1 << 32).memory_may_move(false);
    config
}

fn engine() -> Result<Engine> {
    Ok(Engine::new(&config())?)
}

fn pooling_engine() -> Result<Engine> {
    let mut pool = wasmtime::PoolingAllocationConfig::new();
    pool.total_core_instances(100)
        .total_memories(200)
        .max_memories_per_module(2)
        .max_memory_size(1 << 32)
        .linear_memory_keep_resident(64 << 10);
    Ok(Engine::new(config().allocation_strategy(pool))?)
}

fn linker(engine: &Engine) -> Result<Linker<()>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap("host", "add_one", |_: Caller<'_, ()>, n: i64| n + 1)?;
    let ty = FuncType::new(engine, [ValType::I64], [ValType::I64]);
    let add_one = |_: Caller<'_, ()>, values: &mut [std::mem::MaybeUninit<ValRaw>]| {
        if let [value] = values {
            // SAFETY: the function has one parameter, which is initialised.
            let n = unsafe { value.assume_init() }.get_i64();
            value.write(ValRaw::i64(n + 1));
        }
        Ok(())
    };
    // SAFETY: reads one i64 and writes one, as the type says.
    unsafe { linker.func_new_unchecked("host", "add_one_raw", ty, add_one)? };
    Ok(linker)
}

/// A live instance of the guest.
struct Live {
    store: Store<()>,
    instance: Instance,
}

fn start(pre: &InstancePre<()>) -> Result<Live> {
    let mut store = Store::new(pre.module().engine(), ());
    store.set_epoch_deadline(1);
    let instance = pre.instantiate(&mut store)?;
    Ok(Live { store, instance })
}

fn guest(engine: &Engine) -> Result<InstancePre<()>> {
    let module = Module::new(engine, wat::parse_str(GUEST)?)?;
    Ok(linker(engine)?.instantiate_pre(&module)?)
}

impl Live {
    fn export(&mut self, name: &str) -> Result<TypedFunc<(), i32>> {
        Ok(self.instance.get_typed_func(&mut self.store, name)?)
    }

    /// Makes room for an input of this size and an output as long, in both memories.
    fn make_room(&mut self, size: usize) -> Result<Memory> {
        let bytes = 8192 + 2 * size as u64;
        let mut last = None;
        for name in ["memory", "extism"] {
            let memory = self.instance.get_memory(&mut self.store, name).ok_or("a memory is missing")?;
            let missing = bytes.div_ceil(65536).saturating_sub(memory.size(&self.store));
            memory.grow(&mut self.store, missing)?;
            last = Some(memory);
        }
        let global = self.instance.get_global(&mut self.store, "length").ok_or("a global is missing")?;
        global.set(&mut self.store, i64::try_from(size)?.into())?;
        last.ok_or("a memory is missing".into())
    }
}

/// Runs the iterations, and returns nanoseconds.
type Measure = Box<dyn FnMut(u64) -> Result<f64>>;

fn nanoseconds(time: Duration) -> f64 {
    time.as_nanos() as f64
}

/// Typed calls of an export; the input is copied into the memory before each.
fn call(options: &Options) -> Result<Measure> {
    let mut live = start(&guest(&engine()?)?)?;
    let memory = live.make_room(options.size)?;
    let function = live.export(&options.call)?;
    let input = vec![b'x'; options.size];
    Ok(Box::new(move |iterations| {
        let begin = Instant::now();
        for _ in 0..iterations {
            if !input.is_empty() {
                memory.data_mut(&mut live.store)[INPUT as usize..][..input.len()].copy_from_slice(&input);
            }
            function.call(&mut live.store, ())?;
        }
        Ok(nanoseconds(begin.elapsed()))
    }))
}

/// Iterations inside of one call.
fn repeat(options: &Options) -> Result<Option<Measure>> {
    let mut live = start(&guest(&engine()?)?)?;
    let Ok(function) = live.instance.get_typed_func::<i64, i64>(&mut live.store, &options.call) else {
        return Ok(None);
    };
    Ok(Some(Box::new(move |iterations| {
        let begin = Instant::now();
        function.call(&mut live.store, i64::try_from(iterations)?)?;
        Ok(nanoseconds(begin.elapsed()))
    })))
}

/// From nothing to the first result.
fn first() -> Measure {
    Box::new(|iterations| {
        let begin = Instant::now();
        for _ in 0..iterations {
            let mut live = start(&guest(&engine()?)?)?;
            live.export("empty")?.call(&mut live.store, ())?;
        }
        Ok(nanoseconds(begin.elapsed()))
    })
}

/// Store, instance and first call; or the end of these.
fn new_or_free(options: &Options, free: bool) -> Result<Measure> {
    let pre = guest(&if options.pool { pooling_engine()? } else { engine()? })?;
    Ok(Box::new(move |iterations| {
        let mut total = Duration::ZERO;
        for _ in 0..iterations {
            let begin = Instant::now();
            let mut live = start(&pre)?;
            live.export("empty")?.call(&mut live.store, ())?;
            let made = Instant::now();
            drop(live);
            total += if free { made.elapsed() } else { made - begin };
        }
        Ok(nanoseconds(total))
    }))
}

/// Compiles a module.
fn compile(options: &Options, engine: Engine) -> Result<Measure> {
    let wasm = wat::parse_file(&options.file)?;
    Ok(Box::new(move |iterations| {
        let begin = Instant::now();
        for _ in 0..iterations {
            drop(Module::new(&engine, &wasm)?);
        }
        Ok(nanoseconds(begin.elapsed()))
    }))
}

/// Loads what was compiled before from a file.
fn load(options: &Options) -> Result<Measure> {
    let engine = engine()?;
    let artifact = Artifact(std::env::temp_dir().join(format!("bench-floor-{}.cwasm", std::process::id())));
    std::fs::write(&artifact.0, engine.precompile_module(&wat::parse_file(&options.file)?)?)?;
    Ok(Box::new(move |iterations| {
        let begin = Instant::now();
        for _ in 0..iterations {
            // SAFETY: this engine made the file just now, and nobody has changed it.
            drop(unsafe { Module::deserialize_file(&engine, &artifact.0)? });
        }
        Ok(nanoseconds(begin.elapsed()))
    }))
}

/// Removed with the one who needs it.
struct Artifact(PathBuf);

impl Drop for Artifact {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Time until so many threads have made their calls, each in an instance of its own.
fn run_threads(lives: &mut [Live], calls: u64) -> Result<Duration> {
    let barrier = Barrier::new(lives.len() + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = lives
            .iter_mut()
            .map(|live| {
                scope.spawn(|| -> wasmtime::Result<()> {
                    let function = live.instance.get_typed_func::<(), i32>(&mut live.store, "empty");
                    barrier.wait();
                    let function = function?;
                    for _ in 0..calls {
                        function.call(&mut live.store, ())?;
                    }
                    Ok(())
                })
            })
            .collect();
        let begin = Instant::now();
        barrier.wait();
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(begin.elapsed())
    })
}

/// With `scaling`, calls per second of all threads as a multiple of those of one; else their time.
fn threads(options: &Options, scaling: bool) -> Result<Measure> {
    let pre = guest(&engine()?)?;
    let mut lives = (0..options.count).map(|_| start(&pre)).collect::<Result<Vec<_>>>()?;
    Ok(Box::new(move |calls| {
        let one = if scaling { run_threads(&mut lives[..1], calls)? } else { Duration::ZERO };
        let all = run_threads(&mut lives, calls)?;
        if scaling {
            return Ok(lives.len() as f64 * one.as_secs_f64() / all.as_secs_f64());
        }
        Ok(nanoseconds(all))
    }))
}

fn metric(name: &str, options: &Options) -> Result<Option<Measure>> {
    Ok(Some(match name {
        "call" => call(options)?,
        "loop" => return repeat(options),
        "first" => first(),
        "new" => new_or_free(options, false)?,
        "free" => new_or_free(options, true)?,
        "compile" => compile(options, engine()?)?,
        // An error without the feature `winch`.
        "compile_winch" => compile(options, Engine::new(config().strategy(Strategy::Winch))?)?,
        "load" => load(options)?,
        "threads" => threads(options, false)?,
        "scaling" => threads(options, true)?,
        _ => return Ok(None),
    }))
}

fn run(arguments: &[String]) -> Result<bool> {
    let mut out = std::io::stdout();
    match arguments {
        [command, text, binary] if command == "assemble" => {
            std::fs::write(binary, wat::parse_file(text)?)?;
            return Ok(true);
        }
        [name, options @ ..] => {
            let Some(mut measure) = metric(name, &Options::read(options)?)? else {
                writeln!(out, "unsupported")?;
                return Ok(false);
            };
            writeln!(out, "ready wasmtime 48")?;
            for line in std::io::stdin().lock().lines() {
                writeln!(out, "{:.3}", measure(line?.trim().parse()?)?)?;
            }
        }
        [] => return Err("bench-floor METRIC [KEY=VALUE...]".into()),
    }
    Ok(true)
}

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            println!("error {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
