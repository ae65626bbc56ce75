//! Gives the shared library its SONAME and keeps it loaded for the life of the process.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libextism.so");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
