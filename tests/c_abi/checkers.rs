//! The programs under valgrind and AddressSanitizer.

use std::process::Command;

use crate::tools::{Program, available, fixture, succeed};

/// Valgrind 3.19 knows no AVX-512.
const ISA: (&str, &str) = ("SAM3_ISA", "avx2");

/// No invalid access, no use of uninitialised memory, nothing lost. Tables that dependencies keep for the life of the
/// process stay reachable and do not count; nor does what is "possibly lost", since hash tables among them are held by
/// pointers into their middle alone.
#[test]
fn misuse_under_valgrind() {
    let dir = tempfile::tempdir().unwrap();
    for compiler in available(&["gcc"]) {
        let exe = Program::new(compiler, "tests/c/misuse.c").link(dir.path());
        for valgrind in available(&["valgrind"]) {
            let mut command = Command::new(valgrind);
            command.args(["--quiet", "--error-exitcode=9", "--fair-sched=yes", "--leak-check=full"]);
            command.args(["--show-leak-kinds=definite,indirect", "--errors-for-leak-kinds=definite,indirect"]);
            let output = succeed(command.arg(&exe).arg(fixture()).env(ISA.0, ISA.1));
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        }
    }
}

#[test]
fn misuse_and_tour_under_address_sanitizer() {
    let dir = tempfile::tempdir().unwrap();
    // Its run-time library replaces malloc for the whole process, sam3 included: it sees what leaks there, what is freed
    // twice, and what the C library's functions do with its memory.
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];
    for compiler in available(&["gcc", "clang"]) {
        let exe = Program::new(compiler, "tests/c/misuse.c").args(&flags).link(dir.path());
        succeed(Command::new(exe).arg(fixture()));
        let exe = Program::new(compiler, "tests/c/tour.c").args(&flags).link(dir.path());
        let picture = sam3::image::Picture::open(fixture().join("input.png")).unwrap();
        std::fs::write(dir.path().join("rgb.bin"), picture.pixels()).unwrap();
        succeed(Command::new(exe).arg(fixture()).arg(dir.path()));
    }
}
