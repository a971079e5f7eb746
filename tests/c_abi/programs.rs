//! The programs of `tests/c` and `examples/c`, run.

use std::path::Path;
use std::process::Command;

use crate::expected::Tour;
use crate::tools::{Program, available, fixture, libraries, root, succeed};

const C: [&str; 2] = ["gcc", "clang"];
const CPP: [&str; 2] = ["g++", "clang++"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a built `tour` and compares what it wrote with the Rust interface.
fn check_tour(mut command: Command, tour: &mut Tour, out: &Path) {
    std::fs::write(out.join("rgb.bin"), tour.picture.pixels()).unwrap();
    succeed(command.arg(fixture()).arg(out));
    let (found, expected) = (std::fs::read(out.join("tour.bin")).unwrap(), tour.bytes());
    let first = found.iter().zip(&expected).position(|(f, e)| f != e);
    assert_eq!(first, None, "the first byte that differs, of {} and {}", found.len(), expected.len());
    assert_eq!(found.len(), expected.len());
}

#[test]
fn masks_and_numbers_equal_the_rust_interface() {
    let dir = tempfile::tempdir().unwrap();
    let mut tour = Tour::new(&fixture());
    // The comparison means something: there are instances of concepts and of objects, and masks that are not empty.
    let answer = tour.answer();
    assert!(answer.instances.iter().any(|i| i.prompt < 2) && answer.instances.iter().any(|i| i.prompt >= 2));
    assert!(answer.instances.iter().filter(|i| i.area() > 0).count() > 3, "{:?}", answer.instances);
    for compiler in available(&C) {
        let program = Program::new(compiler, "tests/c/tour.c");
        check_tour(Command::new(program.link(dir.path())), &mut tour, dir.path());
        check_tour(Command::new(program.link_static(dir.path())), &mut tour, dir.path());
    }
}

#[test]
fn misuse_gets_the_documented_status() {
    let dir = tempfile::tempdir().unwrap();
    for compiler in available(&C[..1]) {
        let exe = Program::new(compiler, "tests/c/misuse.c").link(dir.path());
        let output = succeed(Command::new(exe).arg(fixture()));
        assert_eq!(text(&output.stderr), "", "the library prints nothing");
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn threads_get_right_answers_or_busy() {
    let dir = tempfile::tempdir().unwrap();
    for compiler in available(&C[..1]) {
        // C11 for its atomics.
        let exe = Program::new(compiler, "tests/c/threads.c").args(&["-std=c11"]).link(dir.path());
        print!("{}", text(&succeed(Command::new(exe).arg(fixture())).stdout));
    }
}

#[test]
fn the_example_at_the_top_of_the_header_works() {
    let dir = tempfile::tempdir().unwrap();
    let header = std::fs::read_to_string(root().join("include/sam3.h")).unwrap();
    let comment = &header[..header.find("*/").unwrap()];
    let example = &comment[comment.find(" *     #include").unwrap()..];
    let lines = example.lines().map(|l| l.strip_prefix(" *     ").unwrap_or(""));
    let source = dir.path().join("example.c");
    std::fs::write(&source, lines.collect::<Vec<_>>().join("\n")).unwrap();
    let source = source.to_str().unwrap();
    for (compiler, source) in available(&C).into_iter().flat_map(|c| [(c, source), (c, "examples/c/segment.c")]) {
        let exe = Program::new(compiler, source).link(dir.path());
        let picture = fixture().join("input.png");
        // The fixture's weights are random numbers; this phrase finds something by chance.
        let output = succeed(Command::new(&exe).arg(fixture()).arg(&picture).arg("cat"));
        let expected = {
            let model = sam3::Model::open(fixture(), &sam3::ModelOptions::default()).unwrap();
            let view = sam3::image::Picture::open(&picture).unwrap();
            let found = model.session().run(&view.view(), &[sam3::Prompt::text("cat")], &Default::default()).unwrap();
            let line = |(i, f): (usize, &sam3::instance::Instance)| {
                let [x0, y0, x1, y1] = f.bbox;
                let (w, h) = (found.width, found.height);
                format!(
                    "{i:3}: score {:.3}, {} pixels of {w}x{h}, box {x0:.1} {y0:.1} {x1:.1} {y1:.1}\n",
                    f.score,
                    f.area()
                )
            };
            found.instances.iter().enumerate().map(line).collect::<String>()
        };
        assert_eq!(text(&output.stdout), expected);
        let output = Command::new(&exe).args(["/nowhere", "x", "y"]).output().unwrap();
        assert!(!output.status.success() && text(&output.stderr).starts_with("IO: /nowhere"), "{output:?}");
    }
}

#[test]
fn a_render_loop_gets_masks_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    for compiler in available(&C) {
        let exe = Program::new(compiler, "examples/c/frames.c").link(dir.path());
        let output = text(&succeed(Command::new(exe).arg(fixture())).stdout);
        print!("{output}");
        let masks: u32 = output.split(' ').next().unwrap().parse().unwrap();
        assert!(masks > 1, "{output}");
    }
}

#[test]
fn create_and_free_rounds_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for compiler in available(&C[..1]) {
        let exe = Program::new(compiler, "tests/c/soak.c").link(dir.path());
        print!("{}", text(&succeed(Command::new(exe).arg(fixture()).arg("1000")).stdout));
    }
}

#[test]
fn load_and_unload_rounds_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for compiler in available(&C[..1]) {
        let exe = Program::new(compiler, "tests/c/reload.c").link_loader(dir.path());
        let library = libraries().join("libsam3.so");
        print!("{}", text(&succeed(Command::new(exe).arg(library).arg(fixture()).arg("200")).stdout));
    }
}

#[test]
fn headers_are_clean_in_every_language() {
    let dir = tempfile::tempdir().unwrap();
    let twice =
        "#include \"sam3.h\"\n#include \"sam3.h\"\nint main(void) { return sam3_abi_version() != SAM3_ABI_VERSION; }\n";
    let (c, cpp) = (dir.path().join("twice.c"), dir.path().join("twice.cpp"));
    std::fs::write(&c, twice).unwrap();
    std::fs::write(&cpp, twice).unwrap();
    for compiler in available(&C) {
        for std in ["-std=c99", "-std=c11", "-std=c17"] {
            let flags = [std, "-Wstrict-prototypes", "-Wmissing-prototypes"];
            Program::new(compiler, c.to_str().unwrap()).args(&flags).check();
        }
    }
    for compiler in available(&CPP) {
        for std in ["-std=c++11", "-std=c++17", "-std=c++20"] {
            Program::new(compiler, cpp.to_str().unwrap()).args(&[std, "-Wold-style-cast"]).check();
        }
    }
}

#[test]
fn the_cpp_wrapper_finds_the_same_with_and_without_exceptions() {
    let dir = tempfile::tempdir().unwrap();
    let expected = Tour::new(&fixture()).wrapped();
    for compiler in available(&CPP) {
        for flags in [&["-Wold-style-cast"][..], &["-fno-exceptions", "-fno-rtti"], &["-std=c++20"]] {
            let exe = Program::new(compiler, "tests/c/tour.cpp").args(flags).link(dir.path());
            let out = dir.path().join("out.bin");
            let output = succeed(Command::new(exe).arg(fixture()).arg(&out));
            let exceptions = i32::from(!flags.contains(&"-fno-exceptions"));
            assert_eq!(text(&output.stdout), format!("exceptions: {exceptions}\n"));
            assert!(std::fs::read(&out).unwrap() == expected, "{compiler} {flags:?}");
        }
    }
}
