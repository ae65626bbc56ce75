//! What guests can do to files, and which they cannot reach.

use std::fs;
use std::os::unix::fs::symlink;

use extism_tests::wasi::{BADF, CREATE, PATH, PERM, READ, TRUNCATE, WRITE};
use extism_tests::{Scratch, WasiGuest, json, within};

#[test]
fn directories_can_be_read_and_written() {
    within(30, || {
        let host = Scratch::new("rw");
        host.write("file", "text");
        let guest = WasiGuest::with_directory(host.path().to_str().expect("a path in UTF-8"));
        assert_eq!(guest.call("fd_prestat_get", &[3, 0]), 0);
        assert_eq!(guest.u32(4), "/data".len() as u32);
        let file = guest.open("file", 0, READ | WRITE).expect("a descriptor");
        assert_eq!(guest.read(file, 64), "text");
        assert_eq!(guest.write(file, " and more"), 9);
        assert_eq!(host.read("file"), "text and more");
        let new = guest.open("new", CREATE, WRITE).expect("a descriptor");
        assert_eq!(guest.write(new, "written"), 7);
        assert_eq!(host.read("new"), "written");
        guest.put(PATH, b"new");
        assert_eq!(guest.call("path_unlink_file", &[3, PATH, 3]), 0);
        assert!(!host.path().join("new").exists());
    });
}

#[test]
fn read_only_directories_refuse_to_write() {
    within(30, || {
        let host = Scratch::new("ro");
        host.write("file", "text");
        let guest = WasiGuest::with_directory(&format!("ro:{}", host.path().display()));
        let file = guest.open("file", 0, READ).expect("a descriptor");
        assert_eq!(guest.read(file, 64), "text");
        assert_eq!(guest.open("file", 0, WRITE), Err(PERM));
        assert_eq!(guest.open("file", TRUNCATE, READ), Err(PERM));
        assert_eq!(guest.open("new", CREATE, READ), Err(PERM));
        guest.put(PATH, b"filelink");
        assert_eq!(guest.call("path_unlink_file", &[3, PATH, 4]), PERM);
        assert_eq!(guest.call("path_symlink", &[PATH, 4, 3, PATH + 4, 4]), PERM);
        assert_eq!(host.read("file"), "text");
        assert_eq!(fs::read_dir(host.path()).expect("the directory").count(), 1);
    });
}

#[test]
fn nothing_outside_can_be_reached() {
    within(30, || {
        let outer = Scratch::new("escape");
        let host = outer.path().join("inside");
        fs::create_dir_all(host.join("sub")).expect("a directory");
        let secret = outer.write("secret", "secret");
        for (target, link) in [("../secret", "relative"), (&secret, "absolute"), ("..", "up"), ("sub", "in")] {
            symlink(target, host.join(link)).expect("a link");
        }
        let guest = WasiGuest::with_directory(host.to_str().expect("a path in UTF-8"));
        let outside = [
            "..",
            "../secret",
            "sub/../../secret",
            "/etc/passwd",
            "/",
            "relative",
            "absolute",
            "up/secret",
            "in/../up/secret",
        ];
        for path in outside {
            assert_eq!(guest.open(path, 0, READ), Err(PERM), "{path}");
            assert_eq!(guest.open(path, CREATE, WRITE), Err(PERM), "{path}");
        }
        // A guest may make relative links, which lead nowhere for it.
        guest.put(PATH, b"../secretl");
        assert_eq!(guest.call("path_symlink", &[PATH, 9, 3, PATH + 9, 1]), 0);
        assert_eq!(guest.open("l", 0, READ), Err(PERM));
        guest.put(PATH, b"/etc/passwdm");
        assert_eq!(guest.call("path_symlink", &[PATH, 11, 3, PATH + 11, 1]), PERM);
        assert_eq!(outer.read("secret"), "secret");
    });
}

#[test]
fn a_missing_directory_is_named() {
    within(30, || {
        let host = Scratch::new("missing");
        host.write("file", "");
        for (prefix, name) in [("", "none"), ("ro:", "none"), ("", "file")] {
            let path = host.file(name);
            let directories = json!({format!("{prefix}{path}"): "/"});
            let error = WasiGuest::setup().with("allowed_paths", directories).refusal();
            assert!(error.contains("allowed_paths: ") && error.contains(&path), "{error}");
        }
    });
}

#[test]
fn without_directories_there_are_no_files() {
    within(30, || {
        let guest = WasiGuest::plain();
        assert_eq!(guest.open("file", 0, READ), Err(BADF));
        assert_eq!(guest.open("new", CREATE, WRITE), Err(BADF));
    });
}

#[test]
fn each_plugin_opens_its_own_directories() {
    within(30, || {
        let host = Scratch::new("own");
        host.write("file", "text");
        let directories = json!({host.path().to_str().expect("a path in UTF-8"): "/data"});
        let compiled = WasiGuest::setup().with("allowed_paths", directories).compile();
        let [one, two] = [(); 2].map(|()| WasiGuest { plugin: compiled.plugin() });
        for guest in [&one, &two, &one] {
            let file = guest.open("file", 0, READ).expect("a descriptor");
            assert_eq!(guest.read(file, 64), "text");
        }
    });
}
