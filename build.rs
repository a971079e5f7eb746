//! With the feature `kernel-sim`, builds the CPU simulator of the kernels as a stand-in `libcuda.so.1` (`kernels/sim`).
//!
//! Cargo puts folders that a build script names for linking on the library path of the tests and programs it runs, so
//! that the unchanged back end finds the stand-in where it looks for the driver.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "kernel-sim")]
    simulator();
}

#[cfg(feature = "kernel-sim")]
fn simulator() {
    use std::path::PathBuf;

    println!("cargo::rerun-if-changed=kernels");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let library = out.join("libcuda.so.1");
    let compiler = cc::Build::new().cpp(true).std("c++17").opt_level(2).pic(true).get_compiler();
    let mut command = compiler.to_command();
    // No contraction, so that a sum is what the source says; the threads' state is looked up often.
    command.args([
        "-shared",
        "-ffp-contract=off",
        "-fno-strict-aliasing",
        "-fvisibility=hidden",
        "-ftls-model=initial-exec",
    ]);
    command.args(["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]);
    for source in ["driver.cpp", "block.cpp", "hopper.cpp", "instructions.cpp"] {
        command.arg(format!("kernels/sim/{source}"));
    }
    let status = command.arg("-o").arg(&library).status();
    let status = status.unwrap_or_else(|e| panic!("feature kernel-sim needs a C++ compiler: {command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
    println!("cargo::rustc-link-search=native={}", out.display());
    println!("cargo::rustc-env=SAM3_SIMULATED_DRIVER={}", library.display());
}
