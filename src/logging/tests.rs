//! Sinks as values; the process's own log, which can be set once, in the one test at the end.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use log::{Level, LevelFilter};

use super::*;

fn drained(sink: &Sink) -> Vec<String> {
    let mut lines = Vec::new();
    sink.drain(|line| lines.push(line.to_str().unwrap().split_once(' ').unwrap().1.to_owned()));
    lines
}

/// A path of this test's own.
struct Path(PathBuf);

impl Path {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("extism-log-{}-{name}", std::process::id()));
        let _ = fs::remove_file(&path);
        Self(path)
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_buffer_keeps_what_is_wanted() {
    let sink = Sink::buffer(Some("info")).unwrap();
    sink.log(Level::Info, PLUGINS, b"one", Some(&"id"));
    sink.log(Level::Debug, PLUGINS, b"two", Some(&"id"));
    sink.log(Level::Warn, "extism", b"three", None);
    sink.log(Level::Error, "wasmtime", b"four", None);
    assert_eq!(drained(&sink), [" INFO extism::pdk: one plugin=\"id\"\n", " WARN extism: three\n"]);
    assert!(drained(&sink).is_empty());
}

#[test]
fn the_one_who_drains_may_log_and_drain() {
    let sink = Sink::buffer(Some("trace")).unwrap();
    sink.log(Level::Info, "extism", b"1", None);
    sink.log(Level::Info, "extism", b"2", None);
    sink.log(Level::Info, "extism", b"3", None);
    let mut seen = Vec::new();
    let mut inner = Vec::new();
    sink.drain(|line| {
        seen.push(line.to_str().unwrap().trim_end().chars().last().unwrap());
        sink.log(Level::Info, "extism", b"again", None);
        if seen.len() == 2 {
            inner = drained(&sink);
        }
    });
    assert_eq!(seen, ['1', '2']);
    let inner: Vec<_> = inner.iter().map(|line| line.trim_end().rsplit(' ').next().unwrap()).collect();
    assert_eq!(inner, ["3", "again", "again"]);
    assert!(drained(&sink).is_empty());
}

#[test]
fn a_file_is_appended_to() {
    let path = Path::new("append");
    fs::write(&path.0, "before\n").unwrap();
    for text in ["one", "two\nlines"] {
        let sink = Sink::file(Some(path.text()), Some("extism::pdk=debug")).unwrap();
        sink.log(Level::Debug, PLUGINS, text.as_bytes(), Some(&"id"));
        sink.log(Level::Trace, PLUGINS, b"unwanted", Some(&"id"));
    }
    let text = fs::read_to_string(&path.0).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0], "before");
    assert!(lines[1].ends_with(" DEBUG extism::pdk: one plugin=\"id\""), "{text}");
    assert!(lines[2].ends_with(" DEBUG extism::pdk: two\\nlines plugin=\"id\""), "{text}");
}

#[test]
fn lines_of_many_threads_stay_whole() {
    let path = Path::new("threads");
    let sink = Sink::file(Some(path.text()), Some("info")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|_| sink.log(Level::Info, "extism", &[b'x'; 9_000], None)));
        }
    });
    let text = fs::read_to_string(&path.0).unwrap();
    assert_eq!(text.lines().count(), 800);
    assert!(text.lines().all(|line| line.ends_with(&"x".repeat(9_000)) && line.len() < 9_100));
}

#[test]
fn what_cannot_be_opened_is_an_error_that_names_it() {
    let directory = std::env::temp_dir();
    for path in [directory.to_str().unwrap(), "/nonexistent/extism.log", "", "a\0b"] {
        let error = Sink::file(Some(path), Some("info")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the log file `{path}` cannot be opened")), "{error}");
    }
    assert!(Sink::file(Some("/nonexistent/x"), Some("bogus")).unwrap_err().to_string().contains("`bogus`"));
}

fn fifo(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, &path.0, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
}

#[test]
fn a_fifo_keeps_nobody() {
    let path = Path::new("fifo");
    fifo(&path);
    let error = Sink::file(Some(path.text()), Some("info")).unwrap_err().to_string();
    assert!(error.ends_with("(is it a FIFO that nobody reads, or a socket?)"), "{error}");

    // With a reader it is a log like any other. What does not fit is lost, and the lines around it stay whole.
    let read = |options: &mut fs::OpenOptions| options.read(true).custom_flags(libc::O_NONBLOCK).open(&path.0).unwrap();
    let mut reader = read(&mut fs::OpenOptions::new());
    let sink = Sink::file(Some(path.text()), Some("info")).unwrap();
    let long = vec![b'x'; 30_000];
    let mut text = Vec::new();
    for _ in 0..3 {
        (0..10).for_each(|_| sink.log(Level::Info, "extism", &long, None));
        sink.log(Level::Info, "extism", b"lost", None);
        // Until there is nothing more for now.
        let _ = std::io::Read::read_to_end(&mut reader, &mut text);
        sink.log(Level::Info, "extism", b"seen", None);
    }
    // Nobody reads any more: that is no end of this process.
    drop(reader);
    (0..10).for_each(|_| sink.log(Level::Info, "extism", &long, None));
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines.iter().all(|line| line.starts_with("20") && line.matches("INFO").count() == 1), "{}", lines.len());
    assert_eq!(lines.iter().filter(|line| line.ends_with(": seen")).count(), 2);
}

#[test]
fn a_line_after_a_torn_one_is_a_line() {
    let path = Path::new("torn");
    let file = fs::File::create(&path.0).unwrap();
    let mut log = sink::LogFile::torn(file);
    log.write(b"whole\n");
    log.write(b"and whole\n");
    assert_eq!(fs::read_to_string(&path.0).unwrap(), "\nwhole\nand whole\n");
}

#[test]
fn streams_by_their_names() {
    for (path, name) in [
        (None, "standard error"),
        (Some("-"), "standard error"),
        (Some("stderr"), "standard error"),
        (Some("stdout"), "standard output"),
    ] {
        let sink = Sink::file(path, None).unwrap();
        assert_eq!(sink.name(), name);
        assert_eq!(sink.level_of(PLUGINS), LevelFilter::Error);
        sink.log(Level::Error, PLUGINS, b"a test writes this", None);
    }
}

#[test]
fn a_full_disk_loses_the_line_and_nothing_else() {
    let sink = Sink::file(Some("/dev/full"), Some("info")).unwrap();
    sink.log(Level::Info, PLUGINS, b"lost", None);
}

#[test]
fn the_log_of_the_process() {
    assert_eq!(guest_level(), i32::MAX);
    assert!(!enabled(Level::Error));
    drain(|_| panic!("there is no buffer"));
    assert!(to_buffer(Some("bogus")).is_err());
    assert!(to_file(Some("/nonexistent/extism.log"), None).is_err());
    plugin_log(Level::Error, &"id", b"nobody listens");

    to_buffer(Some("extism=info,other=warn")).unwrap();
    assert_eq!(guest_level(), 2);
    assert!(enabled(Level::Info) && enabled(Level::Error) && !enabled(Level::Debug));
    plugin_log(Level::Info, &"id", b"from a plug-in");
    log::info!(target: "extism", "from the library");
    log::debug!(target: "extism", "unwanted");
    log::warn!(target: "other::module", "from\nanother crate");
    log::info!(target: "other", "unwanted");

    // Refused, and nothing that waits is lost; no file is made.
    let path = Path::new("second");
    assert!(to_file(Some(path.text()), None).unwrap_err().to_string().contains("the buffer that is drained already"));
    assert!(!path.0.exists());
    assert!(to_buffer(Some("trace")).is_err());
    assert_eq!(guest_level(), 2);

    let mut lines = Vec::new();
    drain(|line| lines.push(line.to_str().unwrap().split_once(' ').unwrap().1.to_owned()));
    let mine = |line: &&String| line.contains(" extism") || line.contains(" other");
    let lines: Vec<_> = lines.iter().filter(mine).collect();
    assert_eq!(
        lines,
        [
            " INFO extism::pdk: from a plug-in plugin=\"id\"\n",
            " INFO extism: from the library\n",
            " WARN other::module: from\\nanother crate\n"
        ]
    );
}
