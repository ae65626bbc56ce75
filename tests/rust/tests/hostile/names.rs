//! Names: of any bytes, doubled, as long as can be, or those of the library and of its own modules.

use extism_tests::{HostFunction, Plugin, Setup, Type, json, within};

use super::{FINE, assert_fine, counted, empty_functions, leb, module, vector};

/// A module with one empty function under each of these names.
fn exporting(names: &[&[u8]]) -> Vec<u8> {
    let [types, functions, code] = empty_functions(1);
    let exports = names.iter().map(|name| [&counted(name)[..], &[0, 0]].concat()).collect::<Vec<_>>();
    module(&[types, functions, (7, vector(&exports)), code])
}

/// A module that imports a function `() -> ()` under these names, and has one of its own, `run`, that calls it.
fn importing(namespace: &[u8], name: &[u8]) -> Vec<u8> {
    let [types, functions, _] = empty_functions(1);
    let import = [counted(namespace), counted(name), vec![0, 0]].concat();
    let export = [counted("run"), vec![0, 1]].concat();
    module(&[types, (2, vector(&[import])), functions, (7, vector(&[export])), (10, vec![1, 4, 0, 0x10, 0, 0x0b])])
}

const BAD_UTF8: [&[u8]; 6] = [b"\xff", b"a\xc0\x80b", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"];

#[test]
fn names_that_are_no_utf8_are_refused() {
    let [types, functions, code] = empty_functions(1);
    for name in BAD_UTF8 {
        for bytes in [exporting(&[name]), importing(name, b"f"), importing(b"extism:host/user", name)] {
            let error = Setup::new(bytes).refusal();
            assert!(error.contains("UTF-8"), "{error}");
        }
        // In the name section they do not matter, also where a trap wants them.
        let export = (7, vector(&[[counted("run"), vec![0, 0]].concat()]));
        let names = [counted("name"), vec![1], counted(vector(&[[vec![0], counted(name)].concat()]))].concat();
        let trap = (10, vec![1, 3, 0, 0, 0x0b]);
        let sections = [types.clone(), functions.clone(), export.clone(), trap, (0, names)];
        let (error_code, error) = Setup::new(module(&sections)).plugin().run("run").failure();
        assert!(error_code == 134 && error.contains("unreachable"), "{error_code} {error}");
    }
    let sections = [types, functions, code];
    assert!(Setup::new(module(&sections)).try_plugin().is_ok());
}

#[test]
fn a_name_with_nul_is_not_the_name_before_it() {
    let plugin = Setup::new(exporting(&[b"run\0", b"run\0more", b"\0", b"fine2"])).plugin();
    for name in ["run", "", "more"] {
        assert!(!plugin.has(name), "{name:?}");
        assert_eq!(plugin.run(name).failure(), (-1, format!("Function not found: {name}")));
    }
    assert_eq!(plugin.code("fine2"), 0);
    for name in ["_start", "_initialize", "hs_init"] {
        let plugin = Setup::new(exporting(&[format!("{name}\0").as_bytes(), b"run"])).plugin();
        assert_eq!(plugin.code("run"), 0);
        assert!(!plugin.has(name));
    }
}

#[test]
fn an_import_with_nul_is_not_the_function_before_it() {
    let offer = || HostFunction::new("f", &[], &[], |_, _, _| panic!("another one was meant"));
    for (namespace, name) in [("extism:host/user", "f\0"), ("extism:host/user\0", "f"), ("extism:host/user", "\0f")] {
        let error = Setup::new(importing(namespace.as_bytes(), name.as_bytes())).function(offer()).refusal();
        assert!(error.contains("unknown import") && error.contains("\\0"), "{error:?}");
    }
    let error = Setup::new(importing(b"extism:host/env\0", b"reset")).refusal();
    assert!(error.contains("unknown import"), "{error}");
    assert_eq!(Setup::new(importing(b"extism:host/env", b"reset")).plugin().code("run"), 0);
}

#[test]
fn doubled_exports_are_refused_and_doubled_imports_are_not() {
    let error = Setup::new(exporting(&[b"run", b"other", b"run"])).refusal();
    assert!(error.contains("duplicate export") && error.contains("run"), "{error}");
    let error = Setup::new(exporting(&[b"", b""])).refusal();
    assert!(error.contains("duplicate export"), "{error}");
    let plugin = Plugin::new(
        r#"(import "extism:host/env" "input_length" (func $a (result i64)))
           (import "extism:host/env" "input_length" (func $b (result i64)))
           (func (export "run") (call $note (call $a)) (call $note (call $b)))"#,
    );
    assert_eq!(plugin.notes("run", "123"), [3, 3]);
    // The same function with another type beside it.
    let error = Setup::guest(
        r#"(import "extism:host/env" "input_length" (func (result i64)))
           (import "extism:host/env" "input_length" (func (result i32)))"#,
    )
    .refusal();
    assert!(error.contains("input_length"), "{error}");
}

#[test]
fn empty_names_and_long_names() {
    within(20, || {
        let plugin = Setup::new(exporting(&[b"", b"run"])).plugin();
        assert!(plugin.has(""));
        assert_eq!(plugin.code(""), 0);
        let long = vec![b'x'; 99_000];
        let plugin = Setup::new(exporting(&[&long, b"run"])).plugin();
        let name = String::from_utf8(long.clone()).unwrap();
        assert!(plugin.has(&name) && !plugin.has(&name[1..]));
        assert_eq!(plugin.code(&name), 0);
        assert_eq!(plugin.code("run"), 0);
        let error = Setup::new(exporting(&[&[b'x'; 100_001]])).refusal();
        assert!(error.len() < 5000, "{} bytes", error.len());
        for bytes in [importing(&long, b"f"), importing(b"extism:host/user", &long)] {
            let error = Setup::new(bytes).refusal();
            assert!(error.contains("unknown import") && error.len() < 250_000, "{} bytes", error.len());
        }
        let function = HostFunction::new(&name, &[], &[], |_, _, _| {});
        assert_eq!(Setup::new(importing(b"extism:host/user", &long)).function(function).plugin().code("run"), 0);
        let function = HostFunction::new("", &[], &[], |_, _, _| {}).in_namespace("");
        assert_eq!(Setup::new(importing(b"", b"")).function(function).plugin().code("run"), 0);
    });
}

/// What an export is called that the library itself appends: nobody sees those, and a guest may have its own.
#[test]
fn reserved_names_are_hidden_or_the_guests_own() {
    let reserved = ["extism:memory", "extism:input_offset", "extism:input_length", "extism:", "extism:anything"];
    let plain = Plugin::new(FINE);
    let work = r#"(func (export "run") (local $block i64)
        (local.set $block (text 'works')) (call $note (call $input_length))
        (call $note (call $input_load_u64 (i64.const 0))) (call $output (local.get $block)))"#;
    let kinds = [
        ("a function", r#"(func (export "NAME") (result i32) (i32.const 5))"#),
        ("a function of another type", r#"(func (export "NAME") (param i32))"#),
        ("a memory", r#"(memory (export "NAME") 1)"#),
        ("a 64-bit memory", r#"(memory $texts 1) (memory (export "NAME") i64 1 65536)"#),
        ("a table", r#"(table (export "NAME") 1 funcref)"#),
        ("a global", r#"(global (export "NAME") i32 (i32.const 3))"#),
        ("a global like ours", r#"(global (export "NAME") (mut i64) (i64.const 7))"#),
        ("a tag", r#"(tag (export "NAME"))"#),
    ];
    for name in reserved {
        assert!(!plain.has(name));
        assert_eq!(plain.run(name).failure(), (-1, format!("Function not found: {name}")));
        for (kind, definition) in kinds {
            let plugin = Setup::guest(&format!("{} {work} {FINE}", definition.replace("NAME", name))).plugin();
            assert_eq!(plugin.notes("run", words_of_one()), [8, 1], "{name} is {kind}");
            assert_eq!(plugin.output(), b"works");
            assert_eq!(plugin.has(name), kind == "a function", "{name} is {kind}");
            let ended = plugin.run(name);
            match kind {
                "a function" => assert_eq!(ended.success().0, 5),
                _ => assert!(ended.code == -1 && !ended.failure().1.contains("not found"), "{name} is {kind}"),
            }
            assert_fine(&plugin);
        }
    }
    let all: String = reserved.map(|name| format!(r#"(global (export "{name}") (mut i64) (i64.const 99))"#)).concat();
    assert_eq!(Setup::guest(&format!("{all} {work}")).plugin().notes("run", words_of_one()), [8, 1]);
}

fn words_of_one() -> [u8; 8] {
    1u64.to_le_bytes()
}

/// Nothing that the library appends can be imported from anywhere.
#[test]
fn reserved_names_cannot_be_imported() {
    for namespace in ["extism:host/env", "extism:host/user", "extism", "", "main", "env"] {
        for import in [
            r#""extism:memory" (memory i64 1)"#,
            r#""extism:memory" (memory 1)"#,
            r#""extism:input_offset" (global (mut i64))"#,
            r#""extism:input_length" (global i64)"#,
            r#""extism:input_length" (func)"#,
        ] {
            let error = Setup::new(format!(r#"(module (import "{namespace}" {import}))"#)).refusal();
            assert!(error.contains("unknown import"), "{namespace} {import}: {error}");
            // A library beside it has none either, whether it is a reactor or a command.
            for lib in ["(module)", r#"(module (func (export "_start")))"#] {
                let main = format!(r#"(module (import "lib" {import}))"#);
                let error = Setup::linked(&[("lib", lib), ("main", &main)]).refusal();
                assert!(error.contains("unknown import"), "{lib} {import}: {error}");
            }
        }
    }
}

/// Libraries called like what the host offers, each with a function that an honest one of that name has.
#[test]
fn modules_that_are_called_like_the_hosts() {
    let answer = |name: &str, ty: &str| format!(r#"(module (func (export "{name}") {ty}))"#);
    let main = |module: &str, name: &str, result: &str| {
        format!(
            r#"(module (import "{module}" "{name}" (func $f (result {result})))
                 (import "extism:host/env" "input_length" (func $length (result i64))) {FINE}
                 (memory (export "memory") 1)
                 (func (export "run") (result i32) (drop (call $length)) ({result}.ne (call $f)
                   ({result}.const 3))))"#
        )
    };
    let length = answer("input_length", "(result i64) (i64.const 3)");
    let error =
        Setup::linked(&[("extism:host/env", &length), ("main", &main("extism:host/env", "input_length", "i64"))])
            .refusal();
    assert!(error.contains("extism:host/env"), "{error}");

    let user = answer("f", "(result i32) (i32.const 3)");
    let offer = HostFunction::new("f", &[], &[Type::I32], |_, _, outputs| outputs[0].bits = 4);
    let setup = Setup::linked(&[("extism:host/user", &user), ("main", &main("extism:host/user", "f", "i32"))]);
    let plugin = setup.function(offer).plugin();
    assert_eq!(plugin.code("run"), 0, "the linked module counts");
    assert_fine(&plugin);

    let wasi = answer("sched_yield", "(result i32) (i32.const 3)");
    let plugin = Setup::linked(&[
        ("wasi_snapshot_preview1", &wasi),
        ("main", &main("wasi_snapshot_preview1", "sched_yield", "i32")),
    ]);
    assert_eq!(plugin.wasi().plugin().code("run"), 0);

    for name in ["", " ", "\u{0}", "extism:memory", "extism:host/env\u{0}", "\u{feff}", "../main", "Main"] {
        let escaped = name.replace('\0', "\\00");
        let plugin = Setup::linked(&[(name, &user), ("main", &main(&escaped, "f", "i32"))]).plugin();
        assert_eq!(plugin.code("run"), 0, "{name:?}");
        assert_fine(&plugin);
    }
}

/// A library may export what the library of the host appends elsewhere: it is its own memory, and no other.
#[test]
fn a_library_with_reserved_names_lends_its_own_memory() {
    let lib = r#"(module (memory (export "extism:memory") i64 1) (data (i64.const 16) "\2a")
        (global (export "extism:input_offset") (mut i64) (i64.const 3)))"#;
    let main = extism_tests::guest(&format!(
        r#"(import "lib" "extism:memory" (memory $m i64 1)) (import "lib" "extism:input_offset" (global (mut i64)))
           (memory 1) {FINE}
           (func (export "run") (local $input i64)
             (local.set $input (call $input_offset)) (call $store_u8 (local.get $input) (i32.const 7))
             (call $note_i32 (i32.load8_u $m (i64.const 16))) (call $note (global.get 0))
             (call $note (call $input_length)))"#
    ));
    let plugin = Setup::linked(&[("lib", lib), ("main", &main)]).plugin();
    assert_eq!(plugin.notes("run", "12345"), [42, 3, 5]);
    assert_fine(&plugin);
}

#[test]
fn modules_of_one_name_and_several_main_modules() {
    let user = r#"(module (func (export "f") (result i32) (i32.const 3)))"#;
    let main = format!(r#"(module (import "lib" "f" (func (result i32))) {FINE})"#);
    let error = Setup::linked(&[("lib", user), ("lib", user), ("main", &main)]).refusal();
    assert!(error.contains("lib"), "{error}");
    let error = Setup::linked(&[("main", user), ("main", &main)]).refusal();
    assert!(error.contains("main"), "{error}");
    // `main` is what the host calls; another module cannot import it.
    let lib = r#"(module (import "main" "fine" (func (result i32))) (func (export "f") (result i32) (i32.const 3)))"#;
    let error = Setup::linked(&[("lib", lib), ("main", &main)]).refusal();
    assert!(error.contains("main"), "{error}");
}

/// Circles of any length, and modules that want something of themselves.
#[test]
fn circles_and_modules_that_import_themselves() {
    within(20, || {
        for length in [1, 2, 3, 10, 100] {
            let names: Vec<_> = (0..length).map(|index| format!("m{index}")).collect();
            let modules: Vec<_> = (0..length)
                .map(|index| {
                    format!(r#"(module (import "m{}" "f" (func $f)) (export "f" (func $f)))"#, (index + 1) % length)
                })
                .collect();
            let main = r#"(module (import "m0" "f" (func)))"#;
            let mut all: Vec<_> = names.iter().map(String::as_str).zip(modules.iter().map(String::as_str)).collect();
            all.push(("main", main));
            let error = Setup::linked(&all).refusal();
            assert!((error.contains("circle") || error.contains("itself")) && error.contains("m0"), "{error}");
        }
        for ty in ["(func)", "(memory 1)", "(table 1 funcref)", "(global i32)", "(tag)"] {
            let own = format!(r#"(module (import "main" "x" {ty}) (func (export "x")))"#);
            let error = Setup::new(own.clone()).refusal();
            assert!(error.contains("unknown import"), "{error}");
            let error = Setup::linked(&[("lib", "(module)"), ("main", &own)]).refusal();
            assert!(error.contains("main"), "{error}");
            let error = Setup::linked(&[("lib", &own.replace("\"main\"", "\"lib\"")), ("main", "(module)")]).refusal();
            assert!(error.contains("lib"), "{error}");
        }
        let by_json = json!([{"name": "a", "data": extism_tests::base64(r#"(module (import "a" "f" (func)))"#)}]);
        let error = Setup::manifest(json!({ "wasm": by_json })).refusal();
        assert!(error.contains("f"), "{error}");
    });
}

/// A section of names with a million entries, or with indices that nothing has.
#[test]
fn name_sections_without_measure() {
    within(30, || {
        let [types, functions, _] = empty_functions(1);
        let export = (7, vector(&[[counted("run"), vec![0, 0]].concat()]));
        let trap = (10, vec![1, 3, 0, 0, 0x0b]);
        let entries: Vec<Vec<u8>> = (0..300_000u64).map(|index| [leb(index), counted("a name")].concat()).collect();
        let far: Vec<Vec<u8>> = vec![[leb(u32::MAX.into()), counted("far")].concat()];
        let long = vec![[vec![0], counted(vec![b'n'; 5_000_000])].concat()];
        for entries in [entries, far, long] {
            for kind in [0u8, 1, 2, 4, 5, 9, 77] {
                let names = [counted("name"), vec![kind], counted(vector(&entries))].concat();
                let sections = [types.clone(), functions.clone(), export.clone(), trap.clone(), (0, names)];
                let (code, error) = Setup::new(module(&sections)).plugin().run("run").failure();
                assert!(code == 134 && error.contains("unreachable") && error.len() < 20_000, "{code} {}", error.len());
            }
        }
    });
}
