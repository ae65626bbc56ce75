//! What a plug-in can take of memories, tables and the GC heap: what `max_pages` says, and no more of the host.

use std::time::{Duration, Instant};

use extism_tests::{Plugin, Scratch, Setup, guest, in_child, json, slowdown, within};

use super::{FINE, MIB, assert_fine, growth, limited};

/// A limit on the size of files is none on what a module brings. Neither its data, nor its code that would be kept on
/// disk, nor the dump of its memory end the process.
#[test]
fn files_beyond_the_limit_on_their_size() {
    let scratch = Scratch::new("greedy-files");
    let configuration = scratch.write("cache.toml", format!("[cache]\ndirectory = {:?}\n", scratch.path()));
    let environment = [("EXTISM_CACHE_CONFIG", &*configuration), ("EXTISM_MEMDUMP", &scratch.file("dump"))];
    in_child("greedy::files_beyond_the_limit_on_their_size", &environment, || {
        let limit = libc::rlimit { rlim_cur: 10_000, rlim_max: 10_000 };
        // SAFETY: a limit of this process.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
        let plugin = Plugin::new(&format!(
            r#"(memory (export "memory") 20) (data (i32.const 1000000) "{}")
               (func (export "run") (result i32) (i32.load8_u (i32.const 1000009)))
               (func (export "trap") unreachable)"#,
            "0123456789".repeat(10_000)
        ));
        assert_eq!(plugin.code("run"), i32::from(b'9'));
        assert_eq!(plugin.run("trap").code, 134);
        assert_eq!(plugin.code("run"), i32::from(b'9'));
    });
    assert!(!scratch.path().join("dump").exists());
}

/// 160 pages are 10 MiB: everything that it can get is written to, call after call.
#[test]
fn every_kind_of_memory_ends_at_the_limit() {
    within(100, || {
        let some_memories: String = (0..20)
            .map(|m| {
                format!(
                    "(if (i32.eq (memory.grow {m} (i32.const 1)) (i32.const -1)) (then unreachable))
                     (memory.fill {m} (i32.const 0) (i32.const 1) (i32.mul (memory.size {m}) (i32.const 65536)))"
                )
            })
            .collect();
        let many = "(memory 0)".repeat(20);
        let greedy = [
            (
                "memory",
                "(memory 0)".to_owned(),
                "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
                 (memory.fill (i32.const 0) (i32.const 1) (i32.mul (memory.size) (i32.const 65536)))",
                0,
            ),
            ("memories", many, &format!("(loop $l {some_memories} (br $l))"), -1),
            (
                "a 64-bit memory",
                "(memory i64 0)".to_owned(),
                "(loop $l (br_if $l (i64.ne (memory.grow (i64.const 1)) (i64.const -1))))
                 (memory.fill (i64.const 0) (i32.const 1) (i64.mul (memory.size) (i64.const 65536)))",
                0,
            ),
            (
                "a table",
                "(table 0 funcref)".to_owned(),
                "(loop $l (br_if $l (i32.ne (table.grow (ref.null func) (i32.const 1000)) (i32.const -1))))",
                0,
            ),
            (
                "tables",
                "(table $a i64 0 externref) (table $b 0 anyref)".to_owned(),
                "(loop $l
                   (if (i64.eq (table.grow $a (ref.null extern) (i64.const 1000)) (i64.const -1)) (then unreachable))
                   (if (i32.eq (table.grow $b (ref.i31 (i32.const 5)) (i32.const 1000)) (i32.const -1))
                     (then unreachable))
                   (br $l))",
                -1,
            ),
            (
                "blocks",
                String::new(),
                "(local $h i64)
                 (loop $l
                   (local.set $h (call $alloc (i64.const 5000))) (call $store_u64 (local.get $h) (i64.const -1))
                   (br $l))",
                -1,
            ),
            (
                "a large block",
                String::new(),
                "(local $n i64)
                 (loop $l
                   (call $free (call $alloc (local.tee $n (i64.add (local.get $n) (i64.const 60000)))))
                   (br $l))",
                -1,
            ),
            (
                "structs",
                "(type $list (struct (field (ref null $list)) (field i64 i64 i64 i64)))
                 (global $g (mut (ref null $list)) (ref.null $list))"
                    .to_owned(),
                "(global.set $g (ref.null $list))
                 (loop $l
                   (global.set $g (struct.new $list
                     (global.get $g) (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1)))
                   (br $l))",
                -1,
            ),
            (
                "arrays",
                "(type $a (array (mut i64))) (type $as (array (mut (ref null $a))))
                 (global $g (mut (ref null $as)) (ref.null $as))"
                    .to_owned(),
                "(local $i i32)
                 (global.set $g (array.new_default $as (i32.const 10000)))
                 (loop $l
                   (array.set $as (global.get $g) (local.get $i) (array.new $a (i64.const 1) (i32.const 1000)))
                   (local.set $i (i32.add (local.get $i) (i32.const 1)))
                   (br $l))",
                -1,
            ),
            (
                "exceptions",
                "(tag $t (param i64 i64 i64 i64)) (table $kept 40000 exnref)".to_owned(),
                "(local $i i32)
                 (loop $l
                   (table.set $kept (local.get $i)
                     (block $b (result exnref)
                       (try_table (catch_all_ref $b)
                         (throw $t (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1)))
                       unreachable))
                   (local.set $i (i32.add (local.get $i) (i32.const 1)))
                   (br $l))",
                -1,
            ),
        ];
        for (name, parts, run, code) in greedy {
            let plugin = limited(&format!(r#"{parts} (func (export "run") {run})"#), 160).plugin();
            let more = growth(|| {
                for _ in 0..3 {
                    let ended = plugin.run("run");
                    if name == "exceptions" && ended.code == 134 {
                        // Their table is full first.
                        continue;
                    }
                    assert_eq!(ended.code, code, "{name}: {:?}", ended.error);
                    assert_eq!(ended.error.as_deref(), (code != 0).then_some("oom"), "{name}");
                    assert_fine(&plugin);
                }
            });
            assert!(more < 30 * MIB, "{name}: {} KiB", more >> 10);
        }
    });
}

#[test]
fn absurd_arrays_are_out_of_memory_at_once() {
    within(30, || {
        for size in [1i64 << 20, (1 << 28) - 1, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 1] {
            for ty in ["i8", "i64", "v128", "anyref"] {
                let body = format!(
                    r#"(type $a (array (mut {ty}))) (func (export "run")
                      (drop (array.new_default $a (i32.const {}))))"#,
                    size as i32
                );
                let began = Instant::now();
                let plugin = limited(&body, 10).plugin();
                let (code, error) = plugin.run("run").failure();
                assert!(
                    code == -1 && error == "oom" || code == 134 && error.contains("allocation"),
                    "{size} {ty}: {code} {error}"
                );
                assert!(began.elapsed() < Duration::from_secs(2) * slowdown());
                assert_fine(&plugin);
            }
        }
    });
}

/// What a linked module takes counts, and a command gives it back at its end: a million pages in all.
#[test]
fn linked_modules_take_from_the_same_and_commands_give_back() {
    within(60, || {
        let command = r#"(module (memory 1) (table 10 funcref) (func (export "_start"))
            (func (export "f") (result i32)
              (drop (table.grow (ref.null func) (i32.const 10000)))
              (i32.eq (memory.grow (i32.const 30)) (i32.const -1))))"#;
        let reactor = r#"(module (memory 1) (func (export "g") (result i32) (i32.eq (memory.grow (i32.const 30))
          (i32.const -1))))"#;
        let main = guest(&format!(
            r#"(import "command" "f" (func $f (result i32))) (import "reactor" "g" (func $g (result i32))) (memory 1)
               (func (export "run") (local $i i32)
                 (loop $l
                   (if (call $f) (then unreachable))
                   (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 2000)))))
               (func (export "reactor") (result i32) (call $g)) {FINE}"#
        ));
        let setup = Setup::linked(&[("command", command), ("reactor", reactor), ("main", &main)]);
        let plugin = setup.with("memory", json!({"max_pages": 40})).plugin();
        assert_eq!(plugin.code("run"), 0);
        assert_eq!(plugin.code("reactor"), 0);
        assert_eq!(plugin.code("reactor"), 1, "a reactor keeps what it has");
        let (code, error) = plugin.run("run").failure();
        assert_eq!((code, error.as_str()), (-1, "oom"), "and leaves 10 pages for the command");
        assert_fine(&plugin);
    });
}

/// Address space is all that they cost.
#[test]
fn memories_of_4_gib_and_tables_of_10_million_elements() {
    within(60, || {
        let more = growth(|| {
            for body in [
                "(memory 65536)",
                "(memory i64 65536)",
                "(memory 65536) (memory i64 32768)",
                "(memory 0) (table 10000000 funcref)",
                "(memory 0) (table i64 10000000 externref)",
                "(memory 0) (table 5000000 anyref) (table 5000000 funcref)",
            ] {
                let plugin = Plugin::new(&format!("{body} {FINE}"));
                assert_fine(&plugin);
                assert_fine(&plugin);
                let error = limited(body, 1000).refusal();
                assert!(error.contains("max_pages"), "{error}");
            }
        });
        assert!(more < 200 * MIB, "{} MiB", more / MIB);
        for body in [
            "(memory 65536) (memory 65536) (memory 1)",
            "(table 1073741825 funcref)",
            "(table i64 0xffffffffffff funcref)",
        ] {
            let error = Setup::guest(body).refusal();
            assert!(error.contains("8 GiB"), "{body}: {error}");
        }
    });
}
