//! Compilers, libraries and processes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn fixture() -> PathBuf {
    root().join("tests/fixtures/tiny-a")
}

/// Where cargo left `libsam3.so` and `libsam3.a`: beside this test.
pub fn libraries() -> PathBuf {
    let dir = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    assert!(dir.join("libsam3.so").exists(), "expected libsam3.so in {}", dir.display());
    dir
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
        let rpath = format!("-Wl,-rpath,{}", libraries.display());
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
