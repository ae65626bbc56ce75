//! Deadlines for tests, and tests that need a process of their own.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How much slower than usual this machine is: the environment's `EXTISM_TEST_SLOWDOWN`, else 1.
pub fn slowdown() -> u32 {
    std::env::var("EXTISM_TEST_SLOWDOWN").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Runs what might hang; it fails after this many seconds.
pub fn within<R: Send + 'static>(seconds: u64, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, done) = mpsc::channel::<()>();
    let worker = thread::spawn(move || {
        // Dropped when the work is over, also when it panics.
        let _sender = sender;
        work()
    });
    let limit = Duration::from_secs(seconds) * slowdown();
    if done.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("it hangs: not done after {limit:?}");
    }
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Set in a child to the name of the test that it runs.
pub(crate) const CHILD: &CStr = c"EXTISM_TEST_CHILD";
/// How a child ends that ran its test to the end.
const DONE: i32 = 42;

/// Runs the body of the test `name` in a process of its own, with these environment variables, and returns what
/// that printed. `name` is the name of the calling test.
pub fn in_child(name: &str, environment: &[(&str, &str)], body: impl FnOnce()) -> Output {
    let variable = CHILD.to_str().expect("a name in ASCII");
    if std::env::var_os(variable).is_some() {
        body();
        std::process::exit(DONE);
    }
    let program = std::env::current_exe().expect("the test's own program");
    let child = Command::new(program)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(variable, name)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a child process");
    let output = finish(child);
    assert_eq!(
        output.status.code(),
        Some(DONE),
        "the child ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Waits for a child, but not for ever.
fn finish(child: Child) -> Output {
    let id = child.id().cast_signed();
    let (sender, done) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    match done.recv_timeout(Duration::from_secs(30) * slowdown()) {
        Ok(output) => output.expect("the child's output"),
        Err(_) => {
            // SAFETY: our own child, which nobody has waited for to its end yet.
            unsafe { libc::kill(id, libc::SIGKILL) };
            panic!("the child hangs");
        }
    }
}

/// How much of this process is in memory.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("the system's /proc");
    let pages: u64 = statm.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("the number of pages");
    pages * 4096
}

/// A directory for one test, empty at the beginning and gone with it.
pub struct Scratch(PathBuf);

impl Scratch {
    /// For the test of this name.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("extism-tests-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it, as text.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).into_os_string().into_string().expect("a path in UTF-8")
    }

    /// A file in it with this content; returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.file(name);
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// The content of a file in it.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).expect("a file with text")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
