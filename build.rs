//! With `SAM3_BUILD_KERNELS=1`, compiles the CUDA kernels anew before they are embedded, which takes what
//! `tools/build_kernels.py` says at its top; without, nothing: `kernels/prebuilt` holds what it made.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SAM3_BUILD_KERNELS");
    if std::env::var_os("SAM3_BUILD_KERNELS").is_none_or(|v| v != "1") {
        return;
    }
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-env-changed=PYTHON");
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let status = Command::new(&python).arg("tools/build_kernels.py").status();
    let status = status.unwrap_or_else(|e| panic!("SAM3_BUILD_KERNELS=1 needs Python, found {python:?}: {e}"));
    assert!(status.success(), "tools/build_kernels.py: {status}");
}
