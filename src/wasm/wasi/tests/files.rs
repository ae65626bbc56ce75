//! What guests can do to files, and which they cannot reach.

use std::fs;
use std::path::Path;

use super::super::{Directory, context};
use super::{Guest, PATH, scratch};

const PERM: u32 = 63;

const CREATE: u32 = 1;
const TRUNCATE: u32 = 8;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 6;

fn guest_in(host: &Path, read_only: bool) -> Guest {
    Guest::new(&[Directory { host: host.to_owned(), guest: "/data".to_owned(), read_only }])
}

#[test]
fn directories_can_be_read_and_written() {
    let host = scratch("rw");
    fs::write(host.join("file"), "text").unwrap();
    let mut guest = guest_in(&host, false);
    assert_eq!(guest.call("prestat", (3u32, 0u32)).unwrap(), 0);
    assert_eq!(guest.u32(4), 5);
    assert_eq!(guest.open("file", 0, READ | WRITE), 0);
    assert_eq!(guest.open("new", CREATE, WRITE), 0);
    assert!(host.join("new").exists());
    fs::remove_dir_all(host).unwrap();
}

#[test]
fn read_only_directories_refuse_to_write() {
    let host = scratch("ro");
    fs::write(host.join("file"), "text").unwrap();
    let mut guest = guest_in(&host, true);
    assert_eq!(guest.open("file", 0, READ), 0);
    assert_eq!(guest.open("file", 0, WRITE), PERM);
    assert_eq!(guest.open("file", TRUNCATE, READ), PERM);
    assert_eq!(guest.open("new", CREATE, READ), PERM);
    guest.put(PATH, b"file");
    assert_eq!(guest.call("unlink", (PATH, 4u32)).unwrap(), PERM);
    assert_eq!(fs::read(host.join("file")).unwrap(), b"text");
    assert_eq!(fs::read_dir(&host).unwrap().count(), 1);
    fs::remove_dir_all(host).unwrap();
}

#[test]
fn nothing_outside_can_be_reached() {
    let outer = scratch("escape");
    let host = outer.join("inside");
    fs::create_dir_all(host.join("sub")).unwrap();
    fs::write(outer.join("secret"), "secret").unwrap();
    #[cfg(unix)]
    for (target, link) in
        [("../secret", "relative"), (outer.join("secret").to_str().unwrap(), "absolute"), ("..", "up"), ("sub", "in")]
    {
        std::os::unix::fs::symlink(target, host.join(link)).unwrap();
    }
    let mut guest = guest_in(&host, false);
    for path in [
        "..",
        "../secret",
        "sub/../../secret",
        "/etc/passwd",
        "/",
        "relative",
        "absolute",
        "up/secret",
        "in/../up/secret",
    ] {
        assert_eq!(guest.open(path, 0, READ), PERM, "{path}");
        assert_eq!(guest.open(path, CREATE, WRITE), PERM, "{path}");
    }
    // A guest may make relative links, which lead nowhere for it.
    guest.put(PATH, b"../secretl");
    assert_eq!(guest.call("symlink", (PATH, 9u32, PATH + 9, 1u32)).unwrap(), 0);
    assert_eq!(guest.open("l", 0, READ), PERM);
    guest.put(PATH, b"/etc/passwdm");
    assert_eq!(guest.call("symlink", (PATH, 11u32, PATH + 11, 1u32)).unwrap(), PERM);
    fs::remove_dir_all(outer).unwrap();
}

#[test]
fn a_missing_directory_is_named() {
    let host = scratch("missing");
    fs::write(host.join("file"), "").unwrap();
    for (name, read_only) in [("none", false), ("none", true), ("file", false)] {
        let path = host.join(name);
        let directory = Directory { host: path.clone(), guest: "/".into(), read_only };
        let error = context(&[directory], false).err().expect("an error").to_string();
        assert!(error.starts_with("allowed_paths: ") && error.contains(path.to_str().unwrap()), "{error}");
    }
    fs::remove_dir_all(host).unwrap();
}
