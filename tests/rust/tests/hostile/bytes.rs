//! Modules that are no modules, or nearly. Whatever comes of them, it is a message or a plug-in whose calls end.

use std::path::Path;

use extism_tests::{HostFunction, Plugin, Setup, Type, in_child, json, within};

use super::{FINE, Random, assert_fine, counted, empty_functions, leb, module};

/// A real plug-in of the examples.
fn example(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../c-examples/wasm").join(name);
    std::fs::read(path).expect("a plug-in of the examples")
}

/// Creates it, calls it if there is something to call, frees it. Returns whether it could be created.
fn try_out(bytes: &[u8], function: &str) -> bool {
    let data = json!([{"data": {"ptr": bytes.as_ptr() as usize, "len": bytes.len()}}]);
    let limits = json!({"max_pages": 1000});
    let same = HostFunction::new("to_upper", &[Type::I64], &[Type::I64], |current, inputs, outputs| {
        current.bytes(inputs[0].bits);
        outputs[0].bits = inputs[0].bits;
    });
    let setup = Setup::new("").with("wasm", data).with("memory", limits).with("timeout_ms", json!(20));
    match setup.function(same).try_plugin() {
        Err(error) => {
            assert!(!error.is_empty() && error.len() < 10_000, "{error}");
            false
        }
        Ok(plugin) => {
            // The harness reads the error and all of the output.
            for input in ["Hello, World!", ""] {
                plugin.call(function, input);
            }
            true
        }
    }
}

/// Every prefix of it, and it with every single bit turned over; of a larger one every `step`th.
fn truncations_and_flips(name: &'static str, function: &'static str, step: usize) {
    within(110, move || {
        let bystander = Plugin::new(FINE);
        let whole = example(name);
        assert!(try_out(&whole, function));
        let prefixes = (0..whole.len()).filter(|length| try_out(&whole[..*length], function)).count();
        assert!(prefixes < 20, "{prefixes} of the prefixes are modules: those that end between two sections");
        let mut created = 0;
        for bit in (0..8 * whole.len()).step_by(step) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            created += usize::from(try_out(&flipped, function));
        }
        assert!(created > 100, "{created}");
        assert_fine(&bystander);
    });
}

#[test]
fn truncations_and_flipped_bits_of_shout() {
    truncations_and_flips("shout.wasm", "shout", 1);
}

#[test]
fn truncations_and_flipped_bits_of_counter() {
    truncations_and_flips("counter.wasm", "next", 3);
}

#[test]
fn truncations_and_flipped_bits_of_count_vowels() {
    truncations_and_flips("count_vowels.wasm", "count_vowels", 7);
}

/// Several bytes changed, put in, left out, doubled.
#[test]
fn plugins_with_bytes_changed_put_in_and_left_out() {
    within(110, || {
        let mut random = Random(0x5eed);
        for (name, function) in [("shout.wasm", "shout"), ("count_vowels.wasm", "count_vowels")] {
            let whole = example(name);
            for _ in 0..1500 {
                let mut bytes = whole.clone();
                for _ in 0..=random.below(4) {
                    let at = random.below(bytes.len());
                    match random.below(4) {
                        0 => bytes[at] = random.next() as u8,
                        1 => bytes.insert(at, random.next() as u8),
                        2 => drop(bytes.remove(at)),
                        _ => {
                            let end = (at + random.below(40)).min(bytes.len());
                            let piece = bytes[at..end].to_vec();
                            let to = random.below(bytes.len());
                            bytes.splice(to..to, piece);
                        }
                    }
                }
                try_out(&bytes, function);
            }
        }
    });
}

#[test]
fn garbage_is_refused() {
    within(60, || {
        let mut random = Random(77);
        let mut noise = |length: usize| (0..length).map(|_| random.next() as u8).collect::<Vec<_>>();
        let header = b"\0asm\x01\0\0\0".to_vec();
        let mut all: Vec<Vec<u8>> = vec![
            vec![],
            vec![0],
            vec![b'('],
            vec![b'{'],
            b"\0as".to_vec(),
            b"\0asm".to_vec(),
            b"\0asm\x01".to_vec(),
            b"\0asm\x02\0\0\0".to_vec(),
            b"\0asm\0\0\0\0".to_vec(),
            b"\0asm\x0d\0\x01\0".to_vec(),
            b"\0asm\x01\0\x01\0".to_vec(),
            b"\0asm\x0a\0\x01\0".to_vec(),
            b"\0asm\xff\xff\xff\xff".to_vec(),
            b"asm\0\x01\0\0\0".to_vec(),
            b"\x7fELF\x02\x01\x01\0".to_vec(),
            b"PK\x03\x04".to_vec(),
            b"\xef\xbb\xbf".to_vec(),
            b"\xff\xfe\0".to_vec(),
            vec![0; 1 << 20],
            vec![0xff; 1 << 20],
            vec![b'('; 1000],
            vec![b' '; 1 << 20],
        ];
        for length in [1, 7, 100, 10_000] {
            all.push(noise(length));
            all.push([header.clone(), noise(length)].concat());
        }
        for bytes in all {
            // As it is, and as the data of a manifest; a module without anything in it is one.
            let as_it_is = Setup::new(bytes.clone()).try_plugin();
            let error = as_it_is.err().unwrap_or_else(|| panic!("a plug-in of {:x?}", &bytes[..bytes.len().min(20)]));
            assert!(!error.is_empty() && error.len() < 5000, "{error}");
            assert!(!try_out(&bytes, "run"));
        }
        assert!(try_out(&header, "run"), "a module without anything in it");
    });
}

/// A message about text quotes it, but not all of it.
#[test]
fn messages_about_a_long_line_are_bounded() {
    within(20, || {
        for text in [
            "(".repeat(1 << 20),
            format!("(module {})", "x".repeat(1 << 20)),
            format!("{{\"wasm\": {}", "x".repeat(1 << 20)),
        ] {
            let error = Setup::new(text).refusal();
            assert!(error.len() < 64 * 1024, "a message of {} bytes", error.len());
        }
    });
}

/// A core module whose preamble says that it is a component, and the other way round.
#[test]
fn preambles_of_the_other_kind() {
    let mut core = example("counter.wasm");
    core[4..8].copy_from_slice(&[0x0d, 0, 1, 0]);
    let error = Setup::new(core).refusal();
    assert!(error.contains("component"), "{error}");
    let component = [&b"\0asm\x01\0\0\0"[..], &[1], &counted(example("counter.wasm"))].concat();
    Setup::new(component).refusal();
}

/// Sizes and counts that promise more than there is: refused at once, whatever they promise.
#[test]
fn sections_that_promise_too_much_are_refused_at_once() {
    within(20, || {
        let header = b"\0asm\x01\0\0\0";
        for id in 0..=14u8 {
            for promised in [1, 1000, 1 << 20, (1 << 31) - 1, (1 << 32) - 1, 1 << 32, 1 << 63, u64::MAX] {
                // The size of the section, or the count in it.
                assert!(!try_out(&[&header[..], &[id], &leb(promised)].concat(), "run"), "{id} {promised}");
                if id != 0 && id != 8 && id != 12 {
                    assert!(!try_out(&module(&[(id, leb(promised))]), "run"), "{id} {promised}");
                }
                // A name, a vector of types, a body with locals.
                let strange = [vec![1], leb(promised), vec![0x60]].concat();
                assert!(!try_out(&module(&[(id, strange)]), "run") || id == 0, "{id} {promised}");
            }
        }
        // Locals: 2^32 - 1 of them, and twice that.
        for groups in [1u8, 2] {
            let locals = [leb(u32::MAX.into()), vec![0x7f]].concat().repeat(groups.into());
            let body = counted([&[groups][..], &locals, &[0x0b]].concat());
            let [types, functions, _] = empty_functions(1);
            assert!(!try_out(&module(&[types, functions, (10, [vec![1], body].concat())]), "run"));
        }
    });
}

/// Numbers in more bytes than they may have, or with bits where none may be.
#[test]
fn numbers_with_too_many_bytes_are_refused() {
    let header = b"\0asm\x01\0\0\0";
    for number in [&[0x80, 0x80, 0x80, 0x80, 0x80, 0][..], &[0xff, 0xff, 0xff, 0xff, 0x1f], &[0x80; 20], &[0x80]] {
        for id in 1..=13u8 {
            assert!(!try_out(&[&header[..], &[id], number].concat(), "run"), "{id} {number:x?}");
            assert!(!try_out(&module(&[(id, number.to_vec())]), "run"), "{id} {number:x?}");
        }
    }
}

/// Custom sections in every place, with nothing or nonsense in them: they decide nothing.
#[test]
fn custom_sections_decide_nothing() {
    let names = [
        "name",
        "",
        "producers",
        "target_features",
        "linking",
        "reloc.CODE",
        "dylink.0",
        "sourceMappingURL",
        "metadata.code.branch_hint",
        "metadata.code.trace_inst",
        ".debug_info",
        ".debug_line",
        ".debug_abbrev",
        ".debug_str",
        "external_debug_info",
        "core",
        "coremodules",
        "component-type",
        "extism:memory",
        "build_id",
    ];
    let garbage: [&[u8]; 5] =
        [&[], &[0], &[0xff; 100], &[1, 0x80, 0x80, 0x80, 0x80, 0x7f], b"\x01\x05\x01\x00\x02\xff\xfe"];
    within(60, move || {
        let bytes = example("counter.wasm");
        for name in names {
            for contents in garbage {
                let section = [&[0][..], &counted([&counted(name)[..], contents].concat())].concat();
                // Behind the header and behind every section.
                let (mut odd, mut at) = (bytes[..8].to_vec(), 8);
                odd.extend(&section);
                while at < bytes.len() {
                    let (size, length) = number(&bytes[at + 1..]);
                    let end = at + 1 + length + size;
                    odd.extend(&bytes[at..end]);
                    odd.extend(&section);
                    at = end;
                }
                let plugin = Setup::new(odd).plugin();
                assert_eq!(plugin.call("next", "").code, 0, "{name} {contents:x?}");
            }
        }
        let bad_name = [&[0][..], &counted(counted([0xff, 0xfe]))].concat();
        let error = Setup::new([bytes, bad_name].concat()).refusal();
        assert!(error.contains("UTF-8"), "{error}");
    });
}

/// A number in LEB128, and how many bytes it has.
fn number(bytes: &[u8]) -> (usize, usize) {
    let length = bytes.iter().position(|byte| byte & 0x80 == 0).expect("an end") + 1;
    let value = bytes[..length].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    (value, length)
}

/// Debug information is read where somebody asked for it, and when a trap is described.
#[test]
fn broken_debug_information_does_no_harm() {
    in_child("bytes::broken_debug_information_does_no_harm", &[("EXTISM_DEBUG", "1")], || {
        let [types, functions, code] = empty_functions(1);
        let exports = (7, [vec![1], counted("run"), vec![0, 0]].concat());
        let trap = (10, vec![1, 3, 0, 0, 0x0b]);
        let mut random = Random(5);
        for code in [code, trap] {
            for name in ["name", ".debug_info", ".debug_line", ".debug_abbrev", ".debug_ranges", ".debug_str"] {
                for _ in 0..30 {
                    let noise: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
                    let custom = (0, [counted(name), noise].concat());
                    let sections = [types.clone(), functions.clone(), exports.clone(), code.clone(), custom];
                    if let Ok(plugin) = Setup::new(module(&sections)).try_plugin() {
                        let ended = plugin.run("run");
                        assert!(matches!(ended.code, 0 | 134), "{ended:?}");
                    }
                }
            }
        }
    });
}

/// Also the text around a module comes from somewhere.
#[test]
fn truncations_and_flipped_bits_of_a_manifest() {
    within(60, || {
        let manifest = json!({
            "wasm": [{"data": extism_tests::base64("(module (func (export \"run\")))"), "name": "main", "hash": null}],
            "memory": {"max_pages": 5, "max_var_bytes": 10}, "config": {"a": "b\u{e9}\n"}, "timeout_ms": 20,
            "allowed_hosts": ["*.example.com"],
        })
        .to_string()
        .into_bytes();
        let toml =
            b"timeout_ms = 20\n[[wasm]]\ndata = \"KG1vZHVsZSk=\"\nname = 'main'\n[memory]\nmax_pages = 5\n".to_vec();
        for text in [manifest, toml] {
            assert!(Setup::new(text.clone()).try_plugin().is_ok());
            for length in 0..text.len() {
                let _ = Setup::new(&text[..length]).try_plugin();
            }
            for bit in 0..8 * text.len() {
                let mut flipped = text.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                if let Ok(plugin) = Setup::new(flipped).try_plugin() {
                    plugin.run("run");
                }
            }
        }
    });
}
