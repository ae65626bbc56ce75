//! Writes the C header from the documentation and signatures in `src/ffi`.
//!
//! `cargo run -p header -- include/extism.h`
//!
//! Each file of `src/ffi` with exports becomes one section: the file's own documentation is the text
//! above it, and cbindgen turns its items into C. A file is read as it stands, alone: nothing is built
//! or expanded, so this takes no time, and what is declared in another file is known by its name.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The files of `src/ffi`, in the order in which a reader meets them. C wants the types first.
const SECTIONS: [&str; 7] = ["types", "library", "compiled", "plugin", "function", "current_plugin", "log"];

/// The line of the frame that the sections replace.
const PLACE: &str = "@SECTIONS@\n";

fn main() -> Result<(), Box<dyn Error>> {
    let target = env::args_os().nth(1).map(PathBuf::from).ok_or("usage: header FILE")?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.join("../..");

    let config = cbindgen::Config::from_file(root.join("cbindgen.toml"))?;
    let mut sections = String::new();
    for name in SECTIONS {
        let source = root.join("src/ffi").join(name).with_extension("rs");
        sections += &section(&source, &config).map_err(|error| format!("{}: {error}", source.display()))?;
    }
    let frame = fs::read_to_string(here.join("extism.h.in"))?;
    let (before, after) = frame.split_once(PLACE).ok_or("extism.h.in has no line @SECTIONS@")?;
    fs::write(target, format!("{before}{}{after}", sections.trim_start()))?;
    Ok(())
}

/// One file of `src/ffi` as a section of the header.
fn section(source: &Path, config: &cbindgen::Config) -> Result<String, Box<dyn Error>> {
    let heading = heading(&fs::read_to_string(source)?)?;
    let mut items = Vec::new();
    cbindgen::Builder::new().with_config(config.clone()).with_src(source).generate()?.write(&mut items);
    let items = shorten(String::from_utf8(items)?.trim());
    Ok(format!("\n{heading}\n{items}"))
}

/// A file's own documentation, `//! # Title` and what follows, as a C comment.
fn heading(source: &str) -> Result<String, &'static str> {
    let mut lines =
        source.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.strip_prefix(' ').unwrap_or(line));
    let title = lines.next().and_then(|line| line.strip_prefix("# ")).ok_or("the first line must be `//! # Title`")?;

    let rule = "=".repeat(title.chars().count());
    let mut comment = format!("/*\n * {title}\n * {rule}\n");
    for line in lines {
        comment += format!(" * {line}").trim_end();
        comment += "\n";
    }
    comment += " */\n";
    Ok(comment)
}

/// Puts a comment of one line on one line: cbindgen takes three.
fn shorten(items: &str) -> String {
    let lines: Vec<&str> = items.lines().collect();
    let mut rest = lines.as_slice();
    let mut shorter = String::new();
    while let [first, others @ ..] = rest {
        let (line, remaining) = match others {
            [text, last, others @ ..] if first.ends_with("/**") && last.ends_with(" */") => {
                (format!("{first} {} */", text.trim_start_matches([' ', '*'])), others)
            }
            _ => ((*first).to_owned(), others),
        };
        shorter += &line;
        shorter += "\n";
        rest = remaining;
    }
    shorter
}
