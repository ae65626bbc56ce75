//! Gives the shared library its SONAME, keeps it loaded for the life of the process, and names the build: compiled
//! modules on disk are for the very code that made them.

use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    // The fuzz targets are a package of their own, in a folder below, with a lock file of its own.
    let sources = Path::new(file!()).with_file_name("src");
    println!("cargo:rerun-if-changed={}", file!());
    println!("cargo:rerun-if-changed={}", sources.display());
    println!("cargo:rerun-if-changed=Cargo.lock");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libextism.so");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");

    let mut hasher = DefaultHasher::new();
    add(&sources, &mut hasher)?;
    hasher.write(&fs::read("Cargo.lock")?);
    println!("cargo:rustc-env=BUILD_ID={:016x}", hasher.finish());
    Ok(())
}

/// Takes in all files below a directory.
fn add(directory: &Path, hasher: &mut DefaultHasher) -> io::Result<()> {
    let mut paths: Vec<_> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            add(&path, hasher)?;
        } else {
            hasher.write(&fs::read(&path)?);
        }
    }
    Ok(())
}
