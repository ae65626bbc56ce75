//! From manifests to bytes.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::{LinkedModule, Modules};
use super::*;

/// SHA-256 of [`MODULE`].
const MODULE_HASH: &str = "93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476";

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let id = std::process::id();
        let dir = std::env::temp_dir().join(format!("extism-manifest-{id}-{name}"));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn load(text: &str) -> Modules<'static> {
    match good(text).load() {
        Ok((modules, _)) => modules,
        Err(e) => panic!("{e}\nin {text}"),
    }
}

/// The manifest is read, but its modules cannot be loaded; the message has all `parts`.
#[track_caller]
fn fails(text: &str, parts: &[&str]) {
    let message = good(text).load().expect_err("loaded").to_string();
    for part in parts {
        assert!(message.contains(part), "no {part:?} in {message:?}");
    }
}

fn path_json(path: &Path, rest: &str) -> String {
    json_module(&format!("{{\"path\": {path:?}{rest}}}"))
}

/// A manifest of modules with these names (`-` for none), the n-th one being the text `(;n;)`.
fn named(names: &[&str]) -> String {
    let mut text = String::new();
    for (n, name) in names.iter().enumerate() {
        let data = ["KDswOyk=", "KDsxOyk=", "KDsyOyk="][n];
        text += &format!("[[wasm]]\ndata = '{data}'\n");
        if *name != "-" {
            text += &format!("name = '{name}'\n");
        }
    }
    text
}

#[test]
fn the_main_module_and_the_linked_ones() {
    // All as in 1.41.
    for (names, main, linked) in [
        (&["-"][..], 0, &[][..]),
        (&["a"], 0, &[]),
        (&["extism:host/env"], 0, &[]),
        (&["a", "-"], 1, &[("a", 0)]),
        (&["-", "a"], 0, &[("a", 1)]),
        (&["a", "b"], 1, &[("a", 0)]),
        (&["main", "b"], 0, &[("b", 1)]),
        (&["b", "main"], 1, &[("b", 0)]),
        (&["MAIN", "b"], 1, &[("MAIN", 0)]),
        (&["a", "a"], 1, &[("a", 0)]),
        (&["", ""], 1, &[("", 0)]),
        (&["a", "b", "c"], 2, &[("a", 0), ("b", 1)]),
        (&["-", "a", "b"], 0, &[("a", 1), ("b", 2)]),
        (&["a", "-", "b"], 1, &[("a", 0), ("b", 2)]),
        (&["a", "env", "extism:host/env"], 2, &[("a", 0), ("env", 1)]),
    ] {
        let bytes = |n: usize| format!("(;{n};)").into_bytes();
        let linked = linked.iter().map(|&(name, n)| LinkedModule { name: name.into(), bytes: bytes(n).into() });
        let expected = Modules { main: bytes(main).into(), linked: linked.collect() };
        assert_eq!(load(&named(names)), expected, "{names:?}");
    }
}

#[test]
fn names_that_cannot_work() {
    // All as in 1.41: "Duplicate module name found in Extism manifest: ...".
    for (names, what) in [
        (&["-", "-"][..], "wasm[0] and wasm[1] would both be the main module"),
        (&["main", "-"], "wasm[0] and wasm[1] would both be the main module"),
        (&["a", "-", "main"], "wasm[1] and wasm[2] would both be the main module"),
        (&["main", "main"], "all but one need a `name` other than `main`"),
        (&["a", "a", "-"], "wasm[1].name: another module is named \"a\", too"),
        (&["a", "main", "a"], "wasm[2].name: another module is named \"a\", too"),
        (&["", "", "b"], "wasm[1].name: another module is named \"\", too"),
        (&["extism:host/env", "-"], "wasm[0].name: \"extism:host/env\" is the library's own"),
    ] {
        fails(&named(names), &[what]);
    }
}

#[test]
fn settings_come_through() {
    let (_, settings) = good(&json("\"timeout_ms\": 5")).load().unwrap();
    assert_eq!(settings.timeout, Some(Duration::from_millis(5)));
}

#[test]
fn bare_modules() {
    for input in [MODULE, b"(module)"] {
        let (modules, _) = parse(input).unwrap().load().unwrap();
        assert_eq!(modules, Modules { main: input.into(), linked: vec![] });
    }
}

#[test]
fn data_is_a_module() {
    fails("{\"wasm\": [{\"data\": \"\"}]}", &["wasm[0] (data): the module is empty"]);
    // "hello": 1.41 tries it as WAT text.
    let neither = "wasm[0] (\"a\", data): the 5 bytes are neither a WebAssembly module";
    fails("{\"wasm\": [{\"data\": \"aGVsbG8=\", \"name\": \"a\"}]}", &[neither, "WAT text"]);
}

#[test]
fn hashes() {
    for hash in [MODULE_HASH, &MODULE_HASH.to_uppercase()] {
        let text = format!("{{\"data\": \"{MODULE_BASE64}\", \"hash\": \"{hash}\"}}");
        assert_eq!(load(&json_module(&text)).main, MODULE);
        let text = format!("[[wasm]]\ndata = '{MODULE_BASE64}'\nhash = '{hash}'");
        assert_eq!(load(&text).main, MODULE);
    }
    let zero = "0".repeat(64);
    let text = format!("{{\"data\": \"{MODULE_BASE64}\", \"name\": \"a\", \"hash\": \"{zero}\"}}");
    fails(&json_module(&text), &["wasm[0] (\"a\", data): hash mismatch", MODULE_HASH, &zero]);
}

#[test]
fn files() {
    let scratch = Scratch::new("files");
    let module = scratch.file("a.wasm", MODULE);
    assert_eq!(load(&path_json(&module, "")).main, MODULE);
    assert_eq!(load(&path_json(&module, &format!(", \"hash\": \"{MODULE_HASH}\""))).main, MODULE);
    let wat = scratch.file("a.wat", b" \n(module)");
    assert_eq!(load(&path_json(&wat, "")).main, &b" \n(module)"[..]);
    let large = [MODULE, &vec![0; 3_000_000]].concat();
    assert_eq!(load(&path_json(&scratch.file("large", &large), "")).main, large);

    let missing = scratch.0.join("missing");
    let name = format!("wasm[0] (path {missing:?}): ");
    fails(&path_json(&missing, ""), &[&name, "cannot read the file", "No such file"]);
    let empty = scratch.file("empty", b"");
    fails(&path_json(&empty, ""), &["the module is empty"]);
    let other = scratch.file("other", b"{\"wasm\": []}");
    fails(&path_json(&other, ""), &["the 12 bytes are neither a WebAssembly module"]);
    // 1.41 ends the process over a NUL byte.
    fails(&json_module("{\"path\": \"a\\u0000b\"}"), &["wasm[0] (path \"a\\0b\"): cannot read"]);
    fails(&json_module("{\"path\": \"\"}"), &["wasm[0] (path \"\"): cannot read", "No such file"]);
}

#[test]
fn what_is_not_a_file() {
    let scratch = Scratch::new("not-a-file");
    fails(&path_json(&scratch.0, ""), &["it is a directory, not a regular file"]);
    fails(&path_json(Path::new("/dev/zero"), ""), &["it is a device or socket, not a regular file"]);
    // 1.41 waits for ever.
    let fifo = scratch.0.join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    if made.is_ok_and(|status| status.success()) {
        fails(&path_json(&fifo, ""), &["it is a FIFO, not a regular file"]);
    }
}

#[test]
fn files_that_are_too_large() {
    let scratch = Scratch::new("too-large");
    let path = scratch.file("sparse", MODULE);
    fs::File::options().write(true).open(&path).unwrap().set_len((1 << 30) + 1).unwrap();
    fails(&path_json(&path, ""), &["1073741825 bytes are too many", "end at 1073741824"]);
}

#[test]
fn memory_of_this_process() {
    let at =
        |address: u64, length: u64| json_module(&format!("{{\"data\": {{\"ptr\": {address}, \"len\": {length}}}}}"));
    let here = MODULE.as_ptr() as u64;
    assert_eq!(load(&at(here, MODULE.len() as u64)).main, MODULE);
    // 1.41 reads there itself: the process ends.
    let cannot = "cannot read the memory of this process: Bad address";
    for address in [0, 1, 4096, u64::MAX, u64::MAX - 7] {
        let name = format!("wasm[0] (8 bytes at {address:#x}): ");
        fails(&at(address, 8), &[&name, cannot]);
    }
    fails(&at(here, 1 << 30), &[cannot]);
    for length in [(1 << 30) + 1, 1 << 63, u64::MAX] {
        fails(&at(here, length), &[&format!("{length} bytes are too many")]);
    }
    for address in [0, here] {
        fails(&at(address, 0), &["the module is empty"]);
    }
}

#[test]
fn urls() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.windows(4).any(|w| w == b"\r\n\r\n") {
            let mut bytes = [0; 512];
            let count = stream.read(&mut bytes).unwrap();
            assert_ne!(count, 0);
            request.extend_from_slice(&bytes[..count]);
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\n";
        stream.write_all(&[head.as_bytes(), MODULE].concat()).unwrap();
        String::from_utf8(request).unwrap()
    });
    let text = format!("{{\"url\": \"http://{address}/a\", \"headers\": {{\"x-a\": \"b\"}}}}");
    assert_eq!(load(&json_module(&text)).main, MODULE);
    let request = server.join().unwrap().to_lowercase();
    assert!(request.starts_with("get /a http/1"), "{request}");
    assert!(request.contains("x-a: b\r\n"), "{request}");

    // Nobody listens there any more.
    let text = json_module(&format!("{{\"url\": \"http://user:secret@{address}/a\"}}"));
    fails(&text, &["wasm[0] (url): "]);
    let message = good(&text).load().unwrap_err().to_string();
    assert!(!message.contains("secret"), "{message}");
}
