//! Modules with very many parts, or very large ones: they are made in reasonable time, or refused.

use std::time::{Duration, Instant};

use extism_tests::{HostFunction, Setup, Type, slowdown, within};

use super::{counted, empty_functions, leb, module, vector};

/// Runs this; it is over in so many seconds.
#[track_caller]
fn in_seconds<R>(seconds: u64, work: impl FnOnce() -> R) -> R {
    let began = Instant::now();
    let result = work();
    assert!(began.elapsed() < Duration::from_secs(seconds) * slowdown(), "it took {:?}", began.elapsed());
    result
}

#[test]
fn a_hundred_thousand_exports() {
    within(60, || {
        for (count, length) in [(100_000, 0), (100_000, 60), (200, 90_000)] {
            let name = |index: usize| format!("{index}{}", "x".repeat(length));
            let exports: Vec<_> = (0..count).map(|index| [counted(name(index)), vec![0, 0]].concat()).collect();
            let [types, functions, code] = empty_functions(1);
            let bytes = module(&[types, functions, (7, vector(&exports)), code]);
            in_seconds(10, || {
                let plugin = Setup::new(bytes).plugin();
                for index in [0, 1, count / 2, count - 1] {
                    assert!(plugin.has(&name(index)));
                    assert_eq!(plugin.code(&name(index)), 0);
                }
                assert!(!plugin.has(&name(count)));
                (0..1000.min(count)).for_each(|index| assert_eq!(plugin.code(&name(index)), 0));
            });
        }
    });
}

#[test]
fn ten_thousand_imports() {
    within(60, || {
        let imports = |name: &dyn Fn(usize) -> String, count: usize| {
            let import = |index| [counted("extism:host/env"), counted(name(index)), vec![0, 0]].concat();
            let [types, functions, _] = empty_functions(1);
            let export = [counted("run"), vec![0], leb(count as u64)].concat();
            let code = (10, vec![1, 2, 0, 0x0b]);
            module(&[
                types,
                (2, vector(&(0..count).map(import).collect::<Vec<_>>())),
                functions,
                (7, vector(&[export])),
                code,
            ])
        };
        in_seconds(10, || assert_eq!(Setup::new(imports(&|_| "reset".to_owned(), 10_000)).plugin().code("run"), 0));
        in_seconds(10, || {
            let error = Setup::new(imports(&|index| format!("missing {index}"), 10_000)).refusal();
            assert!(error.contains("unknown import") && error.len() < 5000, "{} bytes", error.len());
        });
        in_seconds(20, || {
            let error = Setup::new(imports(&|_| "reset".to_owned(), 1_000_001)).refusal();
            assert!(error.len() < 5000, "{} bytes", error.len());
        });
    });
}

/// As many globals as the format allows leave no room for ours: then the module runs as it came.
#[test]
fn as_many_globals_as_there_can_be() {
    within(100, || {
        for count in [999_997, 999_998, 999_999, 1_000_000] {
            let [types, functions, _] = empty_functions(1);
            // type 1: () -> (i64); imported: input_length
            let types = (types.0, vector(&[vec![0x60, 0, 0], vec![0x60, 0, 1, 0x7e], vec![0x60, 0, 1, 0x7f]]));
            let import = [counted("extism:host/env"), counted("input_length"), vec![0, 1]].concat();
            let globals = vector(&vec![vec![0x7f, 0, 0x41, 5, 0x0b]; count]);
            let export = [counted("run"), vec![0, 1]].concat();
            let last = leb(count as u64 - 1);
            // The last global plus the length of the input.
            let body = [&[0, 0x23][..], &last, &[0x10, 0, 0xa7, 0x6a, 0x0b]].concat();
            let sections = [
                types,
                (2, vector(&[import])),
                (functions.0, vector(&[vec![2]])),
                (6, globals),
                (7, vector(&[export])),
                (10, vector(&[counted(body)])),
            ];
            let plugin = in_seconds(20, || Setup::new(module(&sections)).plugin());
            assert_eq!(plugin.call("run", "123").code, 8, "{count} globals");
        }
    });
}

#[test]
fn many_types_segments_tables_and_tags() {
    within(100, || {
        let refused_or_runs = |name: &str, sections: &[(u8, Vec<u8>)]| {
            let bytes = module(sections);
            in_seconds(20, || match Setup::new(bytes).try_plugin() {
                Ok(plugin) => {
                    let ended = plugin.run("run");
                    assert_eq!((ended.code, &ended.error), (0, &None), "{name}");
                }
                Err(error) => assert!(error.len() < 5000, "{name}: {} bytes", error.len()),
            });
        };
        let [types, functions, code] = empty_functions(1);
        let run = (7, vector(&[[counted("run"), vec![0, 0]].concat()]));
        let many = |part: Vec<u8>, count: usize| vector(&vec![part; count]);
        let different: Vec<_> = (0..10_000u32)
            .map(|index| {
                [
                    &[0x60, 17][..],
                    &(0..17).map(|bit| if index >> bit & 1 == 1 { 0x7e } else { 0x7f }).collect::<Vec<u8>>(),
                    &[0],
                ]
                .concat()
            })
            .collect();
        let several = [vec![vec![0x60, 0, 0]], different].concat();
        refused_or_runs("types", &[(1, vector(&several)), functions.clone(), run.clone(), code.clone()]);
        for (name, section) in [
            ("tables", (4, many(vec![0x70, 0, 0], 100))),
            ("too many tables", (4, many(vec![0x70, 0, 0], 101))),
            ("large tables", (4, many(vec![0x70, 0, 0x80, 0x80, 4], 100))),
            ("memories", (5, many(vec![0, 1], 100))),
            ("tags", (13, many(vec![0, 0], 100_000))),
            ("too many tags", (13, many(vec![0, 0], 1_000_001))),
            ("memories of nothing", (5, many(vec![1, 0, 0], 100))),
        ] {
            refused_or_runs(name, &[types.clone(), functions.clone(), section, run.clone(), code.clone()]);
        }
        for (name, count) in [("data", 100_000), ("too much data", 100_001)] {
            let memory = (5, vec![1, 0, 1]);
            let data = (11, many(vec![0, 0x41, 0, 0x0b, 1, b'x'], count));
            refused_or_runs(name, &[types.clone(), functions.clone(), memory, run.clone(), code.clone(), data]);
        }
        for (name, count) in [("elements", 100_000), ("too many elements", 100_001)] {
            let table = (4, vec![1, 0x70, 0, 1]);
            let elements = (9, many(vec![0, 0x41, 0, 0x0b, 1, 0], count));
            refused_or_runs(name, &[types.clone(), functions.clone(), table, run.clone(), elements, code.clone()]);
        }
    });
}

/// As many parameters and results as there can be, to guests and to host functions.
#[test]
fn a_thousand_parameters_and_results() {
    within(60, || {
        let types = vec![Type::I64; 1000];
        let same = HostFunction::new("same", &types, &types, |_, inputs, outputs| {
            for (index, (input, output)) in inputs.iter().zip(outputs).enumerate() {
                assert_eq!(input.bits, index as u64);
                output.bits = input.bits + 1;
            }
        });
        let list = "i64 ".repeat(1000);
        let constants: String = (0..1000).map(|index| format!("(i64.const {index})")).collect();
        let body = format!(
            r#"(import "extism:host/user" "same" (func $same (param {list}) (result {list})))
               (func (export "run") (local $sum i64) {constants} (call $same) {adds} (call $note))
               (func (export "wide") (param {list}) (result {list}) unreachable)
               (func (export "recursion") (call $deep {constants}) {drops})
               (func $deep (param {list}) (result {list}) (call $deep {gets}))"#,
            adds = "i64.add ".repeat(999),
            drops = "drop ".repeat(1000),
            gets = (0..1000).map(|index| format!("(local.get {index})")).collect::<String>(),
        );
        let plugin = in_seconds(10, || Setup::guest(&body).function(same).plugin());
        assert_eq!(plugin.notes("run", ""), [(1..=1000).sum::<i64>()]);
        let (code, error) = plugin.run("wide").failure();
        assert!(code == -1 && error.contains("wide") && error.len() < 20_000, "{} bytes", error.len());
        let (code, error) = plugin.run("recursion").failure();
        assert!(code == 134 && error.contains("call stack exhausted"), "{error}");
        let too_many = format!("(module (func (param {list} i64)))");
        Setup::new(too_many).refusal();
    });
}

/// Types that contain each other many times over: what is said about them stays short.
#[test]
fn types_without_measure() {
    within(60, || {
        let chain: String = (1..1000)
            .map(|index| format!("(type $t{index} (struct (field (ref null $t{0}) (ref null $t{0}))))", index - 1))
            .collect();
        let last = "(ref null $t999) ".repeat(1000);
        let wat = format!(
            r#"(module (type $t0 (struct)) {chain} (func (export "wide") (param {last}))
                 (func (export "run")) (global (export "global") (ref null $t999) (ref.null $t999))
                 (table (export "table") 1 (ref null $t999)))"#
        );
        let plugin = in_seconds(10, || Setup::new(wat).plugin());
        assert_eq!(plugin.code("run"), 0);
        for name in ["wide", "global", "table"] {
            let (code, error) = plugin.run(name).failure();
            assert!(code == -1 && error.contains(name) && error.len() < 256 * 1024, "{name}: {} bytes", error.len());
        }
        let import = format!(r#"(module (type $t0 (struct)) {chain} (import "no" "where" (func (param {last}))))"#);
        let error = in_seconds(10, || Setup::new(import).refusal());
        assert!(error.contains("no") && error.len() < 256 * 1024, "{} bytes", error.len());
    });
}

/// Data for places that are not there: an error of the first call, which is where instances are made.
#[test]
fn segments_that_do_not_fit_fail_the_first_call() {
    for segment in [
        r#"(memory 1) (data (i32.const 65536) "x")"#,
        r#"(memory 1) (data (i32.const -1) "x")"#,
        r#"(memory 0) (data (i32.const 0) "x")"#,
        r#"(memory i64 1) (data (i64.const -1) "xx")"#,
        r#"(memory i64 1) (data (i64.const 0x100000000) "x")"#,
        "(table 1 funcref) (func $f) (elem (i32.const 1) $f)",
        "(table 1 funcref) (func $f) (elem (i32.const -1) $f)",
        "(table i64 1 funcref) (func $f) (elem (table 0) (i64.const -1) func $f)",
    ] {
        let plugin = Setup::new(format!(r#"(module {segment} (func (export "run")))"#)).plugin();
        for _ in 0..3 {
            let (code, error) = plugin.run("run").failure();
            assert!(code == 134 && error.contains("out of bounds"), "{segment}: {code} {error}");
        }
    }
}
