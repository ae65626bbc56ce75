//! What calls and plug-ins take of the machine, and give back. Each of these counts in a process of its own.

use std::fs;

use extism_tests::{Plugin, Reply, Server, Setup, in_child, json, resident_bytes};

const MIB: u64 = 1 << 20;

fn entries(directory: &str) -> usize {
    fs::read_dir(directory).expect("the system's /proc").count()
}

fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").expect("the system's /proc").lines().count()
}

const ECHO: &str = r#"(func (export "echo") (call $output_set (call $input_offset) (call $input_length)))
    (func (export "nothing"))"#;

/// libextism 1.41 holds what the largest call took.
#[test]
fn a_large_call_gives_its_memory_back() {
    in_child("a_large_call_gives_its_memory_back", &[], || {
        let plugin = Plugin::new(ECHO);
        assert_eq!(plugin.code("nothing"), 0);
        let before = resident_bytes();
        let input = vec![7; 200 << 20];
        assert_eq!(plugin.call("echo", &input).output.len(), input.len());
        drop(input);
        let held = resident_bytes() - before;
        assert!(held > 190 * MIB, "{held}: the output is there");
        assert_eq!(plugin.code("nothing"), 0);
        let held = resident_bytes().saturating_sub(before);
        assert!(held < 10 * MIB, "{held} bytes after an empty call");

        assert_eq!(plugin.call("echo", vec![7; 200 << 20]).code, 0);
        assert!(plugin.reset());
        let held = resident_bytes().saturating_sub(before);
        assert!(held < 10 * MIB, "{held} bytes after a reset");
    });
}

#[test]
fn plugins_give_everything_back() {
    in_child("plugins_give_everything_back", &[], || {
        let compiled = Setup::guest(ECHO).wasi().compile();
        let round = || {
            let plugins: Vec<_> = (0..50).map(|_| compiled.plugin()).collect();
            for plugin in &plugins {
                assert_eq!(plugin.output_of("echo", [1; 1000]), [1; 1000]);
            }
        };
        round();
        let before = (resident_bytes(), mappings(), entries("/proc/self/fd"), entries("/proc/self/task"));
        (0..20).for_each(|_| round());
        let after = (resident_bytes(), mappings(), entries("/proc/self/fd"), entries("/proc/self/task"));
        assert!(after.0 < before.0 + 8 * MIB, "resident: {before:?}, {after:?}");
        assert!(after.1 <= before.1 + 16, "mappings: {before:?}, {after:?}");
        assert_eq!((after.2, after.3), (before.2, before.3), "descriptors and threads");
    });
}

#[test]
fn compiled_plugins_give_everything_back() {
    in_child("compiled_plugins_give_everything_back", &[], || {
        let round = |n: u32| {
            let body = format!(r#"{ECHO} (func (export "n") (result i32) (i32.const {n}))"#);
            assert_eq!(Plugin::new(&body).code("n"), n.cast_signed());
        };
        // So many that those which are kept for the next time are replaced by others.
        (0..300).for_each(round);
        let before = (resident_bytes(), mappings());
        (300..600).for_each(round);
        let after = (resident_bytes(), mappings());
        assert!(after.0 < before.0 + 16 * MIB, "resident: {before:?}, {after:?}");
        assert!(after.1 < before.1 + 100, "mappings: {before:?}, {after:?}");
    });
}

#[test]
fn failed_creations_and_calls_give_everything_back() {
    in_child("failed_creations_and_calls_give_everything_back", &[], || {
        let plugin = Plugin::new(
            r#"(func (export "trap") (drop (call $alloc (i64.const 1000000))) unreachable)
               (func (export "_start") (drop (call $alloc (i64.const 1000000))) unreachable)"#,
        );
        let round = || {
            Setup::new(r#"(module (import "extism:host/user" "missing" (func)))"#).refusal();
            Setup::new("(module (func (result i32)))").refusal();
            Setup::new("{\"wasm\": 1}").refusal();
            assert_eq!(plugin.run("trap").code, 134);
            assert_eq!(plugin.run("_start").code, 134);
            assert_eq!(plugin.run("nowhere").code, -1);
        };
        (0..20).for_each(|_| round());
        let before = (resident_bytes(), mappings());
        (0..200).for_each(|_| round());
        let after = (resident_bytes(), mappings());
        assert!(after.0 < before.0 + 8 * MIB, "resident: {before:?}, {after:?}");
        assert!(after.1 < before.1 + 50, "mappings: {before:?}, {after:?}");
    });
}

#[test]
fn requests_give_everything_back() {
    in_child("requests_give_everything_back", &[], || {
        let server = Server::new(|_| Reply::new(200, "answer"));
        let request = json!({"url": server.url("/")});
        let plugin = Setup::guest(&format!(
            r#"(func (export "run") (call $output (call $http_request (text '{request}') (i64.const 0))))"#
        ))
        .with("allowed_hosts", json!(["*"]))
        .plugin();
        let round = || assert_eq!(plugin.output_of("run", ""), b"answer");
        (0..5).for_each(|_| round());
        let before = (resident_bytes(), entries("/proc/self/fd"));
        (0..100).for_each(|_| round());
        // Connections of the last requests may still be closing.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let after = (resident_bytes(), entries("/proc/self/fd"));
        assert!(after.0 < before.0 + 16 * MIB, "resident: {before:?}, {after:?}");
        assert!(after.1 <= before.1 + 4, "descriptors: {before:?}, {after:?}");
    });
}

/// A process has 65,530 of them by default.
#[test]
fn a_plugin_alive_costs_few_mappings() {
    in_child("a_plugin_alive_costs_few_mappings", &[], || {
        let compiled = Setup::guest(&format!("{ECHO} (func (export \"text\") (call $output (text 'data')))")).compile();
        let alive = |count: usize| {
            let plugins: Vec<_> = (0..count).map(|_| compiled.plugin()).collect();
            for plugin in &plugins {
                assert_eq!(plugin.output_of("text", "input"), b"data");
            }
            plugins
        };
        let first = alive(10);
        let before = (mappings(), resident_bytes());
        let others = alive(200);
        let each = (mappings() - before.0) as f64 / 200.0;
        let bytes = (resident_bytes() - before.1) / 200;
        assert!(each < 6.5, "{each} mappings for each plug-in");
        assert!(bytes < 64 * 1024, "{bytes} bytes for each plug-in");
        drop((first, others));
    });
}
