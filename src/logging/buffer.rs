//! Lines that wait for the host to drain them.

use std::collections::VecDeque;
use std::ffi::CString;

use log::Level;

use super::line;

/// The most bytes that may wait. Older lines make room for newer ones.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// What a line costs beside its text: its place in the queue and the allocator's part.
const OVERHEAD: usize = 64;

/// A bounded queue of lines. Lines carry no NUL (they are escaped), and are kept as the host will read them.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    lines: VecDeque<CString>,
    bytes: usize,
    /// Lines ever taken in: the number of the next one.
    next: u64,
    /// Lines that had to go since the last drain.
    dropped: u64,
}

impl Buffer {
    /// Appends a line.
    pub fn push(&mut self, line: String) {
        let Ok(line) = CString::new(line) else {
            return;
        };
        self.bytes += cost(&line);
        self.lines.push_back(line);
        self.next += 1;
        while self.bytes > MAX_BYTES && self.pop().is_some() {
            self.dropped += 1;
        }
    }

    /// The number that the next line will have.
    pub fn end(&self) -> u64 {
        self.next
    }

    /// The oldest line, if its number is below `end`; before it, once, a line that says how many were dropped.
    pub fn take(&mut self, end: u64) -> Option<CString> {
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            let text = format!("{dropped} log lines were dropped: more than {MAX_BYTES} bytes waited to be drained");
            return CString::new(line::format(Level::Warn, "extism", text.as_bytes(), None)).ok();
        }
        let first = self.next - self.lines.len() as u64;
        if first < end { self.pop() } else { None }
    }

    fn pop(&mut self) -> Option<CString> {
        let line = self.lines.pop_front()?;
        self.bytes -= cost(&line);
        Some(line)
    }
}

fn cost(line: &CString) -> usize {
    line.count_bytes() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(buffer: &mut Buffer) -> Vec<String> {
        let end = buffer.end();
        std::iter::from_fn(|| buffer.take(end)).map(|line| line.into_string().unwrap()).collect()
    }

    #[test]
    fn lines_leave_in_order_and_once() {
        let mut buffer = Buffer::default();
        for n in 0..3 {
            buffer.push(format!("{n}\n"));
        }
        assert_eq!(all(&mut buffer), ["0\n", "1\n", "2\n"]);
        assert!(all(&mut buffer).is_empty());
        assert_eq!(buffer.bytes, 0);
    }

    #[test]
    fn a_drain_ends_where_it_began() {
        let mut buffer = Buffer::default();
        buffer.push("a\n".to_owned());
        let end = buffer.end();
        assert!(buffer.take(end).is_some());
        buffer.push("b\n".to_owned());
        assert!(buffer.take(end).is_none());
        assert_eq!(all(&mut buffer), ["b\n"]);
    }

    #[test]
    fn the_oldest_go_first_and_are_counted() {
        let mut buffer = Buffer::default();
        let text = "x".repeat(1 << 20);
        for n in 0..20 {
            buffer.push(format!("{n} {text}\n"));
        }
        assert!(buffer.bytes <= MAX_BYTES);
        let lines = all(&mut buffer);
        assert!(lines[0].contains("WARN extism: 5 log lines were dropped"), "{}", lines[0]);
        assert_eq!(lines.len(), 16);
        assert!(lines[1].starts_with("5 ") && lines[15].starts_with("19 "));
        buffer.push("later\n".to_owned());
        assert_eq!(all(&mut buffer), ["later\n"]);
    }

    #[test]
    fn many_empty_lines_are_bounded_too() {
        let mut buffer = Buffer::default();
        for _ in 0..1_000_000 {
            buffer.push("\n".to_owned());
        }
        assert!(buffer.lines.len() <= MAX_BYTES / OVERHEAD);
    }
}
