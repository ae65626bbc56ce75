//! Files: paths and links that lead out, special files that keep one waiting, what is read-only.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use extism_tests::wasi::{
    ACCES, CREATE, DIRECTORY, EXCLUSIVE, FAULT, INVAL, LOOP, MEMORY, NAMETOOLONG, NOENT, NOTDIR, NOTEMPTY, NOTSUP,
    PATH, PERM, READ, TRUNCATE, WRITE,
};
use extism_tests::{PAGE, Scratch, WasiGuest, in_child, json, slowdown, within};

/// The flag of path functions that follows links.
const FOLLOW: u64 = 1;

/// Ways to open something: flags and rights.
const WAYS: [(u64, u64); 8] = [
    (0, READ),
    (0, WRITE),
    (0, READ | WRITE),
    (0, 0),
    (CREATE, READ | WRITE),
    (TRUNCATE, WRITE),
    (CREATE | TRUNCATE, WRITE),
    (DIRECTORY, READ),
];

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

pub(super) fn guest(directories: extism_tests::Value, timeout: u64) -> WasiGuest {
    let timeout = timeout * u64::from(slowdown());
    let setup = WasiGuest::setup().with("allowed_paths", directories).with("timeout_ms", json!(timeout));
    WasiGuest { plugin: setup.plugin() }
}

/// One whose calls end after five seconds, with this directory.
pub(super) fn guest_in(directory: &Path) -> WasiGuest {
    guest(json!({text(directory): "/data"}), 5000)
}

fn c_string(path: &Path) -> CString {
    CString::new(text(path)).expect("a path without NUL")
}

fn fifo(path: &Path) {
    // SAFETY: a NUL-terminated path.
    assert_eq!(unsafe { libc::mkfifo(c_string(path).as_ptr(), 0o666) }, 0);
}

/// A device, for which the test needs the right to make one; false if it has not.
fn device(path: &Path, kind: libc::mode_t, major: u32, minor: u32) -> bool {
    // SAFETY: a NUL-terminated path.
    unsafe { libc::mknod(c_string(path).as_ptr(), kind | 0o666, libc::makedev(major, minor)) == 0 }
}

pub(super) fn quickly(work: impl FnOnce()) {
    let began = Instant::now();
    work();
    assert!(began.elapsed() < Duration::from_secs(3) * slowdown(), "took {:?}", began.elapsed());
}

/// A directory with one of each special file, by its name and the type that WASI has for it.
fn specials(directory: &Path) -> Vec<(&'static str, u8)> {
    fifo(&directory.join("fifo"));
    UnixListener::bind(directory.join("socket")).expect("a socket");
    let mut made = vec![("fifo", 0), ("socket", 6)];
    // /dev/zero and /dev/ram0.
    if device(&directory.join("zero"), libc::S_IFCHR, 1, 5) {
        made.push(("zero", 2));
    }
    if device(&directory.join("disk"), libc::S_IFBLK, 1, 0) {
        made.push(("disk", 1));
    }
    made
}

#[test]
fn special_files_are_not_opened() {
    within(60, || {
        let host = Scratch::new("special");
        let specials = specials(host.path());
        let guest = guest_in(host.path());
        for (name, kind) in &specials {
            symlink(name, host.path().join(format!("to-{name}"))).expect("a link");
            quickly(|| {
                for path in [(*name).to_owned(), format!("to-{name}"), format!("./{name}")] {
                    for (flags, rights) in WAYS {
                        let expected = if flags == DIRECTORY { NOTDIR } else { NOTSUP };
                        assert_eq!(guest.open(&path, flags, rights), Err(expected), "{path} {flags} {rights}");
                    }
                    assert!(guest.open(&format!("{path}/"), 0, READ).is_err(), "{path}/");
                    assert!(guest.open(&format!("{path}/x"), CREATE, WRITE).is_err(), "{path}/x");
                }
                // To look at, rename and remove them is fine.
                assert_eq!(guest.stat(name, 0), Ok((*kind, 0)), "{name}");
                assert_eq!(guest.stat(&format!("to-{name}"), FOLLOW), Ok((*kind, 0)), "{name}");
                assert_eq!(guest.transfer("path_rename", (3, name), (3, "elsewhere")), 0);
                assert_eq!(guest.transfer("path_rename", (3, "elsewhere"), (3, name)), 0);
            });
        }
        let listed: BTreeMap<_, _> = guest.list(3, 4096).into_iter().collect();
        for (name, kind) in &specials {
            assert_eq!(listed.get(*name), Some(kind), "{name}");
            assert_eq!(guest.at("path_unlink_file", name), 0);
        }
    });
}

#[test]
fn times_of_special_files() {
    within(60, || {
        let host = Scratch::new("special-times");
        let specials = specials(host.path());
        let guest = guest_in(host.path());
        for (name, _) in specials {
            symlink(name, host.path().join(format!("to-{name}"))).expect("a link");
            quickly(|| {
                for path in [name.to_owned(), format!("to-{name}")] {
                    assert_eq!(guest.set_times(&path, FOLLOW, 1_000_000_000), NOTSUP, "{path}");
                    assert_eq!(guest.set_times(&path, 0, 1_000_000_000), 0, "{path}");
                }
                // Without following, a link's own times are meant.
                assert_eq!(host.path().join(name).symlink_metadata().expect("the file").mtime(), 1);
            });
        }
    });
}

/// A name is a FIFO at one moment and a file at the next.
#[test]
fn a_swap_keeps_nobody_waiting() {
    within(60, || {
        let host = Scratch::new("swap");
        host.write("name", "text");
        fifo(&host.path().join("other"));
        let [name, other] = ["name", "other"].map(|name| c_string(&host.path().join(name)));
        let ends = AtomicBool::new(false);
        let guest = guest_in(host.path());
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    // SAFETY: two NUL-terminated paths.
                    let swapped = unsafe {
                        libc::renameat2(
                            libc::AT_FDCWD,
                            name.as_ptr(),
                            libc::AT_FDCWD,
                            other.as_ptr(),
                            libc::RENAME_EXCHANGE,
                        )
                    };
                    assert_eq!(swapped, 0);
                }
            });
            let (mut opened, mut refused) = (0, 0);
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(5) {
                for (flags, rights) in [(0, READ), (0, WRITE), (CREATE, READ | WRITE)] {
                    match guest.open("name", flags, rights) {
                        Ok(file) => {
                            assert_eq!(guest.call("fd_close", &[file.into()]), 0);
                            opened += 1;
                        }
                        Err(_) => refused += 1,
                    }
                }
                let set = guest.set_times("name", FOLLOW, 0);
                assert!(set == 0 || set == NOTSUP || set == 60, "{set}");
            }
            ends.store(true, Ordering::Relaxed);
            assert!(opened > 0 && refused > 0, "{opened} {refused}");
        });
    });
}

/// Everything below a directory: names, kinds, content, times.
fn snapshot(directory: &Path) -> BTreeMap<String, (String, i64, u64)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("the directory") {
        let path = entry.expect("an entry").path();
        let metadata = path.symlink_metadata().expect("the file");
        let content = match metadata.file_type() {
            kind if kind.is_file() => fs::read_to_string(&path).expect("a text"),
            kind if kind.is_symlink() => text(&fs::read_link(&path).expect("a link")).to_owned(),
            kind if kind.is_fifo() => "fifo".to_owned(),
            _ => {
                found.extend(snapshot(&path));
                "directory".to_owned()
            }
        };
        found.insert(text(&path).to_owned(), (content, metadata.mtime(), metadata.nlink()));
    }
    found
}

#[test]
fn nothing_changes_under_ro() {
    within(60, || {
        let host = Scratch::new("read-only");
        let [fixed, open] = ["fixed", "open"].map(|name| host.path().join(name));
        for directory in [&fixed, &open] {
            fs::create_dir_all(directory.join("sub/empty")).expect("a directory");
            fs::write(directory.join("file"), "text").expect("a file");
            fs::write(directory.join("sub/file"), "text").expect("a file");
            symlink("file", directory.join("link")).expect("a link");
        }
        let before = snapshot(&fixed);
        // The read-only one comes first or second, as their names are sorted.
        let guest = guest(json!({format!("ro:{}", text(&fixed)): "/fixed", text(&open): "/open"}), 5000);
        let (fixed_at, open_at) = (4, 3);
        let path = |function: &str, name: &str| {
            guest.put(PATH, name.as_bytes());
            guest.call(function, &[fixed_at.into(), PATH, name.len() as u64])
        };
        let open_file = |name: &str, flags: u64, rights: u64, base: u32| {
            guest.put(PATH, name.as_bytes());
            let arguments = [base.into(), 1, PATH, name.len() as u64, flags, rights, rights, 0, 0];
            match guest.call("path_open", &arguments) {
                0 => Ok(guest.u32(0)),
                error => Err(error),
            }
        };
        for name in ["file", "sub/file", "link", "new", "sub/new"] {
            for (flags, rights) in [
                (0, WRITE),
                (0, READ | WRITE),
                (CREATE, READ),
                (CREATE | EXCLUSIVE, WRITE),
                (TRUNCATE, READ),
                (CREATE | TRUNCATE, READ | WRITE),
            ] {
                assert_eq!(open_file(name, flags, rights, fixed_at), Err(PERM), "{name} {flags} {rights}");
            }
        }
        for (function, name) in [
            ("path_unlink_file", "file"),
            ("path_unlink_file", "link"),
            ("path_remove_directory", "sub/empty"),
            ("path_create_directory", "new"),
        ] {
            assert_eq!(path(function, name), PERM, "{function} {name}");
        }
        for function in ["path_rename", "path_link"] {
            for (from, to) in [(fixed_at, fixed_at), (fixed_at, open_at), (open_at, fixed_at)] {
                assert_eq!(guest.transfer(function, (from, "file"), (to, "moved")), PERM, "{function} {from} {to}");
            }
        }
        guest.put(PATH, b"filenew");
        assert_eq!(guest.call("path_symlink", &[PATH, 4, fixed_at.into(), PATH + 4, 3]), PERM);
        for flags in [0, FOLLOW] {
            guest.put(PATH, b"file");
            let times = [fixed_at.into(), flags, PATH, 4, 0, 0, 1 | 4];
            assert_eq!(guest.call("path_filestat_set_times", &times), PERM);
        }
        let file = open_file("file", 0, READ, fixed_at).expect("a descriptor");
        let directory = open_file("sub", DIRECTORY, READ, fixed_at).expect("a descriptor");
        assert_eq!(open_file("file", 0, WRITE, directory), Err(PERM));
        assert_eq!(open_file("new", CREATE, WRITE, directory), Err(PERM));
        for descriptor in [file, directory, fixed_at] {
            assert_eq!(guest.call("fd_filestat_set_times", &[descriptor.into(), 0, 0, 1 | 4]), PERM);
        }
        assert_eq!(guest.call("fd_filestat_set_size", &[file.into(), 0]), PERM);
        guest.put(0, [64u32.to_le_bytes(), 4u32.to_le_bytes()].as_flattened());
        for (function, arguments) in
            [("fd_write", vec![file.into(), 0, 1, 8]), ("fd_pwrite", vec![file.into(), 0, 1, 0, 8])]
        {
            assert_ne!(guest.call(function, &arguments), 0, "{function}");
        }
        assert_eq!(guest.read(file, 100), "text");
        assert_eq!(snapshot(&fixed), before);
        // The other one can be written: the calls were not refused for another reason.
        assert_eq!(guest.transfer("path_link", (open_at, "file"), (open_at, "moved")), 0);
        assert!(open_file("new", CREATE, WRITE, open_at).is_ok());
    });
}

#[test]
fn links_of_the_guest_lead_nowhere() {
    within(60, || {
        let outer = Scratch::new("links");
        let host = outer.path().join("inside");
        fs::create_dir_all(host.join("a/b/c")).expect("a directory");
        outer.write("secret", "secret");
        let guest = guest_in(&host);
        // Straight out, by a chain, by a directory, and by one whose target changes afterwards.
        for (target, link) in [
            ("../secret", "out"),
            ("..", "up"),
            ("a/b/../../../secret", "around"),
            ("../../../../secret", "a/b/c/deep"),
            ("out", "chain1"),
            ("chain1", "chain2"),
            ("up/inside/up/secret", "back"),
            ("a", "in"),
            ("./././a/../..", "dots"),
        ] {
            assert_eq!(guest.symlink(target, link), 0, "{link}");
            assert_eq!(guest.readlink(link).as_deref(), Ok(target));
        }
        for target in ["/", "/etc/passwd", text(outer.path())] {
            assert_eq!(guest.symlink(target, "absolute"), PERM);
        }
        let out = [
            "out",
            "up",
            "up/secret",
            "around",
            "a/b/c/deep",
            "in/b/c/deep",
            "chain1",
            "chain2",
            "back",
            "dots",
            "dots/secret",
            "in/../../secret",
            "up/inside/a",
            "a/../../inside/a",
        ];
        for path in out {
            for (flags, rights) in WAYS {
                assert_eq!(guest.open(path, flags, rights), Err(PERM), "{path} {flags} {rights}");
            }
            assert_eq!(guest.stat(path, FOLLOW), Err(PERM), "{path}");
            assert_eq!(guest.set_times(path, FOLLOW, 0), PERM, "{path}");
            for function in ["path_create_directory", "path_remove_directory", "path_unlink_file"] {
                let below = format!("{path}/x");
                assert_ne!(guest.at(function, &below), 0, "{function} {below}");
            }
            for (old, new) in [(format!("{path}/secret"), "in/x".to_owned()), ("in".to_owned(), format!("{path}/x"))] {
                for function in ["path_rename", "path_link"] {
                    assert_ne!(guest.transfer(function, (3, &old), (3, &new)), 0, "{function} {old} {new}");
                }
            }
            assert_ne!(guest.symlink("x", &format!("{path}/x")), 0, "{path}");
        }
        // A hard link to a symbolic link is one to the link itself.
        assert_eq!(guest.transfer("path_link", (3, "out"), (3, "hard")), 0);
        assert_eq!(guest.open("hard", 0, READ), Err(PERM));
        guest.put(PATH, b"outfollowed");
        assert_eq!(guest.call("path_link", &[3, FOLLOW, PATH, 3, 3, PATH + 3, 8]), INVAL);
        // A link that is followed to a file that is not there makes none outside either.
        assert_eq!(guest.symlink("../planted", "plant"), 0);
        assert_eq!(guest.open("plant", CREATE, WRITE), Err(PERM));
        let names: Vec<_> = fs::read_dir(outer.path()).expect("it").map(|e| e.expect("it").file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(outer.read("secret"), "secret");
        // A directory handle does not lead above itself either.
        let directory = guest.open("a", DIRECTORY, READ).expect("a descriptor");
        guest.put(PATH, b"../in");
        assert_eq!(guest.call("path_open", &[directory.into(), 1, PATH, 5, 0, READ, 0, 0, 0]), PERM);
    });
}

#[test]
fn circles_and_chains_of_links_end() {
    within(60, || {
        let host = Scratch::new("circles");
        host.write("file", "text");
        let guest = guest_in(host.path());
        for (target, link) in [("b", "a"), ("a", "b"), ("self", "self"), ("self/x", "below")] {
            assert_eq!(guest.symlink(target, link), 0);
        }
        let mut last = "file".to_owned();
        for n in 0..100 {
            let link = format!("link{n}");
            assert_eq!(guest.symlink(&last, &link), 0);
            last = link;
        }
        assert!(guest.open("link20", 0, READ).is_ok());
        quickly(|| {
            for path in ["a", "b", "self", "self/x", "below", "link99"] {
                for (flags, rights) in WAYS {
                    assert_eq!(guest.open(path, flags, rights), Err(LOOP), "{path}");
                }
                assert_eq!(guest.stat(path, FOLLOW), Err(LOOP), "{path}");
                assert_eq!(guest.set_times(path, FOLLOW, 0), LOOP, "{path}");
            }
        });
    });
}

/// Functions that take paths, with one path for all of them.
fn path_functions(guest: &WasiGuest, at: u64, length: u64) -> Vec<(&'static str, i32)> {
    let call = |name: &'static str, arguments: &[u64]| (name, guest.call(name, arguments));
    vec![
        call("path_create_directory", &[3, at, length]),
        call("path_filestat_get", &[3, 1, at, length, 0]),
        call("path_filestat_get", &[3, 0, at, length, 0]),
        call("path_filestat_set_times", &[3, 1, at, length, 0, 0, 1]),
        call("path_filestat_set_times", &[3, 0, at, length, 0, 0, 1]),
        call("path_link", &[3, 0, at, length, 3, at, length]),
        call("path_open", &[3, 1, at, length, 0, READ, 0, 0, 0]),
        call("path_open", &[3, 1, at, length, CREATE, WRITE, 0, 0, 0]),
        call("path_readlink", &[3, at, length, 0, 64, 128]),
        call("path_remove_directory", &[3, at, length]),
        call("path_rename", &[3, at, length, 3, at, length]),
        call("path_symlink", &[at, length, 3, at, length]),
        call("path_unlink_file", &[3, at, length]),
    ]
}

#[test]
fn paths_of_any_length_and_depth() {
    within(100, || {
        let host = Scratch::new("long");
        host.write("file", "text");
        let guest = guest_in(host.path());
        let pages = (256 << 20) / PAGE;
        assert_eq!(guest.call("grow", &[pages]), 0);
        let end = MEMORY + pages * PAGE;
        // A name of zeros, which no path may contain, of every length up to all of the memory.
        quickly(|| {
            for length in [1, 255, 4096, 1 << 20, end - MEMORY] {
                for (function, error) in path_functions(&guest, MEMORY, length) {
                    assert!(error == INVAL || error == NAMETOOLONG, "{function} {length}: {error}");
                }
            }
        });
        for piece in ["x", "./", "x/", "../", "file/", "a/../"] {
            for length in [256, 4095, 4096, 65_536] {
                let path: String = piece.chars().cycle().take(length).collect();
                guest.put(PATH, path.as_bytes());
                quickly(|| {
                    for (function, error) in path_functions(&guest, PATH, path.len() as u64) {
                        // Of dots and slashes alone there are paths that are fine.
                        assert!(piece == "./" && length <= 4096 || error != 0, "{function} {piece} {length}");
                    }
                });
            }
        }
        // As deep as paths go, step by step.
        let mut deep = String::new();
        for _ in 0..100 {
            deep.push_str("d/");
            assert_eq!(guest.at("path_create_directory", &deep), 0);
        }
        assert!(guest.open(&format!("{deep}file"), CREATE, WRITE).is_ok());
        assert_eq!(guest.open(&format!("{deep}{}", "../".repeat(101)), DIRECTORY, READ), Err(PERM));
        assert_eq!(guest.at("path_remove_directory", "d"), NOTEMPTY);
        for wild in [end, end - 1, u64::from(u32::MAX)] {
            for (function, error) in path_functions(&guest, wild, 4) {
                assert_eq!(error, FAULT, "{function} {wild}");
            }
        }
        assert_eq!(host.read("file"), "text");
    });
}

/// The system's own permissions are in force, too. They are not for a process that may do everything, so the test runs
/// in one that may not.
#[test]
fn what_the_host_may_not_the_guest_may_not() {
    in_child("files::what_the_host_may_not_the_guest_may_not", &[], || {
        let host = Scratch::new("mode");
        host.write("file", "text");
        let guest = guest_in(host.path());
        assert!(guest.open("file", 0, READ).is_ok());
        let mode = |mode| fs::set_permissions(host.file("file"), fs::Permissions::from_mode(mode)).expect("a mode");
        // SAFETY: they have no preconditions; this is the only thread that does anything.
        let everything = unsafe { libc::geteuid() } == 0;
        mode(0);
        // SAFETY: as above.
        assert!(!everything || unsafe { libc::seteuid(65_534) } == 0);
        assert_eq!(guest.open("file", 0, READ), Err(ACCES));
        assert_eq!(guest.open("file", 0, WRITE), Err(ACCES));
        assert_eq!(guest.open("none", 0, READ), Err(NOENT));
        assert_eq!(guest.stat("file", 0), Ok((4, 4)));
        // SAFETY: as above.
        assert!(!everything || unsafe { libc::seteuid(0) } == 0);
        mode(0o600);
        assert!(guest.open("file", 0, READ).is_ok());
    });
}
