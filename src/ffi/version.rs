//! What this library is.

use std::ffi::{CStr, c_char};

/// Version of this header: major.
pub const SAM3_VERSION_MAJOR: u32 = 0;
/// Version of this header: minor.
pub const SAM3_VERSION_MINOR: u32 = 1;
/// Version of this header: patch.
pub const SAM3_VERSION_PATCH: u32 = 0;

/// Version of the binary interface. It rises when a program built with an older header no longer works; compare it with
/// `sam3_abi_version()` where the library is loaded at run time.
pub const SAM3_ABI_VERSION: u32 = 1;

/// `SAM3_ABI_VERSION` of the library in use. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn sam3_abi_version() -> u32 {
    SAM3_ABI_VERSION
}

/// Version of the library in use, "major.minor.patch". Static. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn sam3_version() -> *const c_char {
    string(concat!(env!("CARGO_PKG_VERSION"), "\0"))
}

/// What went into the library in use, one line: its version, the processor and system it is for, the instruction sets
/// it has kernels for (`sam3_devices` tells which of them this machine has), its optional parts. Static. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn sam3_build_info() -> *const c_char {
    const ISAS: &str = if cfg!(target_arch = "x86_64") {
        "avx512 avx2 scalar"
    } else if cfg!(target_arch = "aarch64") {
        "neon scalar"
    } else {
        "scalar"
    };
    /// Whether a part is there.
    const fn yes(there: bool) -> &'static [u8] {
        if there { b"yes" } else { b"no" }
    }
    const PARTS: [&[u8]; 15] = [
        b"sam3 ",
        env!("CARGO_PKG_VERSION").as_bytes(),
        b" ",
        std::env::consts::ARCH.as_bytes(),
        b"-",
        std::env::consts::OS.as_bytes(),
        b"; kernels: ",
        ISAS.as_bytes(),
        b"; avif: ",
        yes(cfg!(feature = "avif")),
        b"; cuda: ",
        yes(cfg!(feature = "cuda")),
        b"; demo-model: ",
        yes(cfg!(feature = "demo-model")),
        b"\0",
    ];
    // Joined by the compiler: a string made at run time would be global state, left over when the library is unloaded.
    static INFO: [u8; joined_len(&PARTS)] = joined(&PARTS);
    string(str::from_utf8(&INFO).unwrap_or("\0"))
}

const fn joined_len(parts: &[&[u8]]) -> usize {
    let (mut len, mut i) = (0, 0);
    while i < parts.len() {
        len += parts[i].len();
        i += 1;
    }
    len
}

const fn joined<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let (mut out, mut at, mut i) = ([0; N], 0, 0);
    while i < parts.len() {
        let mut j = 0;
        while j < parts[i].len() {
            out[at] = parts[i][j];
            at += 1;
            j += 1;
        }
        i += 1;
    }
    out
}

/// The C string of a text that ends with NUL.
fn string(text: &'static str) -> *const c_char {
    CStr::from_bytes_until_nul(text.as_bytes()).unwrap_or_default().as_ptr()
}
