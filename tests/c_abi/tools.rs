//! Compilers, libraries and processes.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn fixture() -> PathBuf {
    root().join("tests/fixtures/tiny-a")
}

/// Where cargo left `libsam3.so` and `libsam3.a`: beside this test.
///
/// All feature sets leave them under these names, and cargo builds them anew only where a source changed: after a build
/// with other features they are not what this test was linked with, which the library's own account of itself shows.
pub fn libraries() -> PathBuf {
    static CHECKED: OnceLock<PathBuf> = OnceLock::new();
    let check = || {
        let dir = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
        let path = dir.join("libsam3.so");
        let library = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        // SAFETY: a static string.
        let expected = unsafe { CStr::from_ptr(sam3::ffi::sam3_build_info()) };
        assert!(
            holds(&library, expected.to_bytes()),
            "{} was built with other features since this test was: expected {expected:?}. Build it again \
             (`touch src/lib.rs`), or give each feature set a folder of its own (`CARGO_TARGET_DIR`)",
            path.display()
        );
        dir
    };
    CHECKED.get_or_init(check).clone()
}

/// Whether `text` is somewhere in `bytes`, a hundred million of them within a moment.
pub fn holds(bytes: &[u8], text: &[u8]) -> bool {
    let rarest = text.iter().position(|&b| b == b';').expect("a text with a semicolon");
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&b| b == b';').map(|n| from + n) {
        let start = at.checked_sub(rarest);
        if start.is_some_and(|start| bytes[start..].starts_with(text)) {
            return true;
        }
        from = at + 1;
    }
    false
}

#[test]
fn a_text_is_found_wherever_it_is() {
    for found in ["a; b", "xa; b", "a; bx", ";;a; ba; b;", "a;a; b"] {
        assert!(holds(found.as_bytes(), b"a; b"), "{found}");
    }
    for other in ["", ";", "a;", "a;b", "; b", "a; ca;"] {
        assert!(!holds(other.as_bytes(), b"a; b"), "{other}");
    }
}

/// Whether snapshots are to be written anew.
pub fn bless() -> bool {
    std::env::var_os("SAM3_BLESS").is_some_and(|v| v == "1")
}

/// Whether a program can be started.
pub fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
}

/// Those of `programs` that this machine has.
pub fn available<'a>(programs: &[&'a str]) -> Vec<&'a str> {
    let found: Vec<&str> = programs.iter().copied().filter(|p| has(p)).collect();
    let required = std::env::var_os("SAM3_REQUIRE_CC").is_some_and(|v| v == "1");
    for missing in programs.iter().filter(|p| !found.contains(p)) {
        assert!(!required, "SAM3_REQUIRE_CC=1, but there is no {missing}");
        println!("skipped: no {missing} on this machine");
    }
    found
}

pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

/// Warnings that no header and no program of ours may cause.
pub const STRICT: [&str; 10] = [
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Werror",
    "-Wshadow",
    "-Wconversion",
    "-Wundef",
    "-Wcast-align",
    "-Wwrite-strings",
    "-O1",
];

/// A C or C++ program being built.
pub struct Program {
    source: PathBuf,
    compiler: String,
    args: Vec<String>,
}

impl Program {
    /// `source` is relative to the package; C99 for `.c`, C++17 for `.cpp`.
    pub fn new(compiler: &str, source: &str) -> Self {
        let std = if source.ends_with(".cpp") { "-std=c++17" } else { "-std=c99" };
        let mut args: Vec<String> = STRICT.map(String::from).to_vec();
        args.extend([std, "-g", "-Iinclude", "-Itests/c"].map(String::from));
        Self { source: source.into(), compiler: compiler.into(), args }
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|a| a.to_string()));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.compiler);
        command.current_dir(root()).args(&self.args).arg(&self.source);
        command
    }

    /// Checks the source and makes nothing.
    pub fn check(&self) {
        succeed(self.command().arg("-fsyntax-only"));
    }

    /// Links with the shared library.
    pub fn link(&self, to: &Path) -> PathBuf {
        let libraries = libraries();
        let exe = to.join(format!("{}-{}", self.source.file_stem().unwrap().to_str().unwrap(), self.compiler));
        // Cargo's library path names target/ as well, where a library of an earlier build may lie: a path of this kind goes
        // before it.
        let rpath = format!("-Wl,--disable-new-dtags,-rpath,{}", libraries.display());
        succeed(self.command().arg("-L").arg(libraries).args([&rpath, "-lsam3", "-pthread", "-lm", "-o"]).arg(&exe));
        exe
    }

    /// Links without the library, which the program loads by itself.
    pub fn link_loader(&self, to: &Path) -> PathBuf {
        let exe = to.join(self.source.file_stem().unwrap());
        succeed(self.command().args(["-pthread", "-ldl", "-o"]).arg(&exe));
        exe
    }

    /// Links with the static library and the libraries of the system that it needs.
    pub fn link_static(&self, to: &Path) -> PathBuf {
        let exe = to.join(format!("{}-{}-static", self.source.file_stem().unwrap().to_str().unwrap(), self.compiler));
        let library = libraries().join("libsam3.a");
        // What `rustc --print native-static-libs` names on Linux; `Libs.private` of sam3.pc.
        let system = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];
        succeed(self.command().arg(library).args(system).arg("-o").arg(&exe));
        exe
    }
}
