//! What `cargo cinstall` leaves, as `examples/README.md` tells people to call it: the layout, the names, and programs built
//! against it by pkg-config and by CMake.
//!
//! It builds the library once more, and cargo-c is long in building, so this runs only where it is asked for:
//!
//! ```text
//! cargo install cargo-c --version 0.10.24 --locked
//! SAM3_CINSTALL=1 cargo test --features capi --test c_abi -- cinstall --nocapture
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::expected::Tour;
use crate::hosts::{check_c, check_cpp, cmake, symbols, text};
use crate::surface::declared;
use crate::tools::{fixture, root, succeed};

/// The one file of this name below `folder`.
fn find(folder: &Path, name: &str) -> PathBuf {
    let output = succeed(Command::new("find").arg(folder).args(["-name", name]));
    let found = text(&output.stdout);
    assert_eq!(found.lines().count(), 1, "{name}: {found:?}");
    PathBuf::from(found.trim())
}

#[test]
fn what_cinstall_leaves_can_be_built_against() {
    if std::env::var_os("SAM3_CINSTALL").is_none_or(|v| v != "1") {
        return println!("skipped: SAM3_CINSTALL=1 asks for it, and needs cargo-c");
    }
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("prefix");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(["cinstall", "--no-default-features", "--features", "demo-model", "--prefix"]);
    // A development build, away from those of this test: what differs from a release is speed.
    let target = PathBuf::from(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
    succeed(command.arg(&prefix).args(["--profile", "dev", "--target-dir"]).arg(target.join("cinstall")));
    let listed = succeed(Command::new("find").arg(&prefix).args(["!", "-type", "d", "-printf", "%P -> %l\\n"]));
    println!("{}", text(&listed.stdout));

    // The library under its names.
    let version = env!("CARGO_PKG_VERSION");
    let soname = format!("libsam3.so.{}", version.rsplit_once('.').unwrap().0);
    let library = find(&prefix, &format!("libsam3.so.{version}"));
    let lib = library.parent().unwrap();
    for link in ["libsam3.so", &soname] {
        assert_eq!(lib.join(link).canonicalize().unwrap(), library.canonicalize().unwrap(), "{link}");
    }
    let dynamic = text(&succeed(Command::new("readelf").arg("-dW").arg(&library)).stdout);
    assert!(dynamic.contains(&format!("(SONAME)             Library soname: [{soname}]")), "{dynamic}");
    let header = std::fs::read_to_string(root().join("include/sam3.h")).unwrap();
    let exported = symbols(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    assert!(exported == declared(&header), "{:?}", exported.symmetric_difference(&declared(&header)));

    // Headers as they are here, and CMake's files.
    assert_eq!(std::fs::read_to_string(find(&prefix, "sam3.h")).unwrap(), header);
    find(&prefix, "sam3.hpp");
    let include = find(&prefix, "sam3.h").parent().unwrap().to_path_buf();
    assert_eq!(include, prefix.join("include"));

    // pkg-config knows all of it, the system's libraries for the static one too.
    let pkg_config = |args: &[&str]| -> Vec<String> {
        let mut command = Command::new("pkg-config");
        command.env("PKG_CONFIG_PATH", lib.join("pkgconfig")).args(args);
        text(&succeed(&mut command).stdout).split_whitespace().map(str::to_string).collect()
    };
    let file = std::fs::read_to_string(lib.join("pkgconfig/sam3.pc")).unwrap();
    assert!(file.lines().any(|l| l.starts_with("Libs.private:") && l.contains("-lm")), "{file}");
    assert_eq!(pkg_config(&["--modversion", "sam3"]), [version]);
    let shared = pkg_config(&["--cflags", "--libs", "sam3"]);
    let whole = pkg_config(&["--cflags", "--libs", "--static", "sam3"]);
    let whole = whole.into_iter().map(|f| if f == "-lsam3" { "-l:libsam3.a".to_string() } else { f });
    let mut tour = Tour::new(&fixture());
    for (kind, flags) in [("shared", shared), ("static", whole.collect())] {
        for (compiler, std, source) in
            [("gcc", "-std=c99", "tests/c/tour.c"), ("g++", "-std=c++17", "tests/c/tour.cpp")]
        {
            let exe = dir.path().join(format!("{compiler}-{kind}"));
            let mut command = Command::new(compiler);
            command.args([std, "-Wall", "-Wextra", "-Wpedantic", "-Werror"]).arg(root().join(source)).args(&flags);
            succeed(command.args(["-lm", "-o"]).arg(&exe));
            let mut run = Command::new(&exe);
            // The static programs find no library, and need none.
            if kind == "shared" {
                run.env("LD_LIBRARY_PATH", lib);
            }
            match compiler {
                "gcc" => check_c(run, &mut tour),
                _ => check_cpp(run, &mut tour),
            }
        }
    }

    let build = dir.path().join("cmake");
    cmake(&prefix, &root().join("tests/hosts"), &build, &[]);
    for kind in ["sam3", "static"] {
        check_c(Command::new(build.join(format!("tour_c_{kind}"))), &mut tour);
        check_cpp(Command::new(build.join(format!("tour_cpp_{kind}"))), &mut tour);
    }
}
