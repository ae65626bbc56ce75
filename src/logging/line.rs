//! The form of a log line, and why one call makes exactly one of them.
//!
//! ```text
//! 2026-01-31T12:00:00.123456Z  INFO extism::pdk: text plugin="0d3c..."
//! ```
//!
//! What a plug-in logs is untrusted: characters that would end the line, move a terminal's cursor, or turn the order
//! in which a line is shown, are escaped; bytes that are not UTF-8 are replaced, and a long text is cut.

use std::fmt::{Display, Write};

use log::Level;

/// The most bytes of one line, its newline included.
pub(super) const MAX_LINE: usize = 64 << 10;

/// Room for the mark of a cut text.
const MARK: usize = 48;

/// One line, with its newline.
pub(super) fn format(level: Level, target: &str, text: &[u8], plugin: Option<&dyn Display>) -> String {
    let mut tail = String::new();
    if let Some(plugin) = plugin {
        // Writing to a string can't fail, here and below.
        let _ = write!(tail, " plugin=\"{plugin}\"");
    }
    tail.push('\n');
    let mut line = String::with_capacity(48 + target.len() + text.len().min(MAX_LINE) + tail.len());
    let _ = write!(line, "{:.6} {level:>5} {target}: ", jiff::Timestamp::now());
    if !append(&mut line, text, MAX_LINE.saturating_sub(MARK + tail.len())) {
        let _ = write!(line, " [cut; {} bytes in all]", text.len());
    }
    line.push_str(&tail);
    line
}

/// Appends a text, escaped, as far as the line stays within `room`. False if it had to be cut.
fn append(line: &mut String, text: &[u8], room: usize) -> bool {
    // No byte becomes less than one: more of the text than this has no room, and need not be looked at.
    let text = text.get(..MAX_LINE).unwrap_or(text);
    for chunk in text.utf8_chunks() {
        let replaced = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        for c in chunk.valid().chars().chain(replaced) {
            let before = line.len();
            escape(line, c);
            if line.len() > room {
                line.truncate(before);
                return false;
            }
        }
    }
    true
}

fn escape(line: &mut String, c: char) {
    let _ = match c {
        '\t' => line.write_char(c),
        '\n' => line.write_str("\\n"),
        '\r' => line.write_str("\\r"),
        c if c.is_ascii_control() => write!(line, "\\x{:02x}", u32::from(c)),
        // The other control characters, Unicode's two line ends, and what turns the direction of writing.
        c if c.is_control()
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}') =>
        {
            write!(line, "\\u{{{:x}}}", u32::from(c))
        }
        c => line.write_char(c),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line without its time.
    fn after_time(text: &[u8]) -> String {
        let line = format(Level::Info, "extism::pdk", text, Some(&"id"));
        line.split_once(' ').unwrap().1.to_owned()
    }

    #[test]
    fn the_form_is_that_of_the_contract() {
        assert_eq!(after_time(b"hello"), " INFO extism::pdk: hello plugin=\"id\"\n");
        assert_eq!(after_time(b""), " INFO extism::pdk:  plugin=\"id\"\n");
        let line = format(Level::Error, "extism", b"x", None);
        assert!(line.ends_with("Z ERROR extism: x\n"), "{line}");
        let time = line.split(' ').next().unwrap();
        assert_eq!(time.len(), "2026-01-31T12:00:00.123456Z".len(), "{time}");
        assert!(time.parse::<jiff::Timestamp>().is_ok());
    }

    #[test]
    fn a_text_cannot_end_its_line() {
        let forged = b"a\n2026-01-01T00:00:00.000000Z ERROR extism: forged\r\nb";
        let line = after_time(forged);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.contains(r"a\n2026") && line.contains(r"forged\r\nb"), "{line}");
        let odd = after_time("\0\x1b[31m\x7f\u{85}\u{2028}\u{2029}\ttab é".as_bytes());
        assert_eq!(odd, " INFO extism::pdk: \\x00\\x1b[31m\\x7f\\u{85}\\u{2028}\\u{2029}\ttab é plugin=\"id\"\n");
    }

    #[test]
    fn a_text_cannot_turn_its_line_around() {
        for c in
            "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}".chars()
        {
            let line = after_time(format!("a{c}b").as_bytes());
            assert_eq!(line, format!(" INFO extism::pdk: a\\u{{{:x}}}b plugin=\"id\"\n", u32::from(c)));
        }
        assert!(after_time("עברית, العربية".as_bytes()).contains("עברית, العربية"));
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        assert_eq!(after_time(b"bad\xff\xfeutf"), " INFO extism::pdk: bad\u{fffd}\u{fffd}utf plugin=\"id\"\n");
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        for filler in ["x", "é", "\n", "\u{85}", "日"] {
            let text = filler.repeat(100_000);
            let line = format(Level::Info, "extism::pdk", text.as_bytes(), Some(&"id"));
            assert!(line.len() <= MAX_LINE, "{}", line.len());
            assert!(line.len() > MAX_LINE - 64, "{}", line.len());
            let end = format!(" [cut; {} bytes in all] plugin=\"id\"\n", text.len());
            assert!(line.ends_with(&end));
        }
        let invalid = vec![0xff; 100_000];
        assert!(format(Level::Info, "extism::pdk", &invalid, None).len() <= MAX_LINE);
    }

    #[test]
    fn a_text_that_just_fits_is_not_cut() {
        let line = format(Level::Info, "t", &vec![b'x'; MAX_LINE - 100], None);
        assert!(!line.contains("[cut"), "{}", line.len());
    }
}
