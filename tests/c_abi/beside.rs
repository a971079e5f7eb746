//! Other company: a second Rust library in the same program, and hosts that are not C.

use std::process::Command;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use sam3::ffi::*;
use sam3::{Model, ModelOptions, Prompt, SegmentOptions};

use crate::tools::{available, fixture, libraries, root, succeed};

/// A static library that brings its own copy of Rust's standard library, and uses what two copies could fight over:
/// the allocator, threads, unwinding.
pub const OTHER: &str = r#"
    #[unsafe(no_mangle)]
    pub extern "C" fn other_answer() -> u64 {
        std::panic::set_hook(Box::new(|_| ()));
        let caught = std::panic::catch_unwind(|| std::thread::spawn(|| vec![1u64; 42]).join().unwrap().len() / black());
        caught.map_or(42, |n| n as u64)
    }
    fn black() -> usize { std::hint::black_box(0) }
"#;

pub const HOST: &str = r#"
    #include <stdint.h>
    #include "sam3.h"
    uint64_t other_answer(void);
    int main(int argc, char **argv) {
        sam3_model *model = NULL;
        if (argc != 2 || sam3_model_open(argv[1], NULL, &model, NULL) != SAM3_OK) return 1;
        uint64_t answer = other_answer();
        sam3_model_free(model);
        return answer == 42 ? 0 : 2;
    }
"#;

#[test]
fn the_static_library_stands_beside_another_of_rust() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("other.rs"), OTHER).unwrap();
    std::fs::write(at("host.c"), HOST).unwrap();
    for (rustc, gcc) in available(&["rustc"]).into_iter().zip(available(&["gcc"])) {
        let mut command = Command::new(rustc);
        command.args(["--edition=2024", "--crate-type=staticlib", "--crate-name=other", "-O", "-o"]);
        succeed(command.arg(at("libother.a")).arg(at("other.rs")));
        let (sam3, other) = (libraries().join("libsam3.a"), at("libother.a"));
        for (first, second) in [(&sam3, &other), (&other, &sam3)] {
            let mut command = Command::new(gcc);
            command.current_dir(root()).args(["-Wall", "-Werror", "-Iinclude"]).arg(at("host.c")).args([first, second]);
            succeed(command.args(["-lgcc_s", "-lpthread", "-lm", "-ldl", "-o"]).arg(at("host")));
            succeed(Command::new(at("host")).arg(fixture()));
        }
    }
}

#[test]
fn python_finds_the_same_through_ctypes() {
    for python in available(&["python3"]) {
        let model = Model::open(fixture(), &ModelOptions::default().threads(2)).unwrap();
        let picture = sam3::image::Picture::open(fixture().join("input.png")).unwrap();
        let found = model.session().run(&picture.view(), &[Prompt::point(20.0, 20.0)], &Default::default()).unwrap();
        let mut command = Command::new(python);
        command.arg(root().join("tests/c/tour.py")).arg(libraries().join("libsam3.so")).arg(fixture());
        let output = String::from_utf8(succeed(&mut command).stdout).unwrap();
        let sum: u64 = found.instances[0].mask.to_u8().iter().enumerate().map(|(i, &v)| i as u64 * u64::from(v)).sum();
        assert_eq!(output, format!("{} {} {sum}\n", found.instances.len(), found.instances[0].area()));
    }
}

/// The shortest of many runs: what the work takes when nothing else does.
fn shortest(best: &mut Duration, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    *best = (*best).min(start.elapsed());
}

/// A click and its mask in bytes, through C and through Rust, by turns: within 2 %, though the fixture is thousands of
/// times smaller than the published model.
#[test]
fn the_boundary_costs_next_to_nothing() {
    let model = Model::open(fixture(), &ModelOptions::default().threads(1)).unwrap();
    let mut session = model.session();
    let picture = sam3::image::Picture::open(fixture().join("input.png")).unwrap();
    let embedding = session.encode(&picture.view()).unwrap();
    let prompt = [Prompt::point(20.0, 20.0)];

    let dir = std::ffi::CString::new(fixture().to_str().unwrap()).unwrap();
    let file = std::ffi::CString::new(fixture().join("input.png").to_str().unwrap()).unwrap();
    let (mut options, mut c_model, mut c_session) = (null_mut(), null_mut(), null_mut());
    let (mut image, mut click) = (null_mut(), null_mut());
    let point = sam3_point { x: 20.0, y: 20.0, positive: 1 };
    // SAFETY: strings, variables and handles that live through the calls.
    unsafe {
        assert_eq!(sam3_model_options_new(&mut options, null_mut()), SAM3_OK);
        assert_eq!(sam3_model_options_set_threads(options, 1, null_mut()), SAM3_OK);
        assert_eq!(sam3_model_open(dir.as_ptr(), options, &mut c_model, null_mut()), SAM3_OK);
        assert_eq!(sam3_session_new(c_model, &mut c_session, null_mut()), SAM3_OK);
        assert_eq!(sam3_encode_file(c_session, file.as_ptr(), &mut image, null_mut()), SAM3_OK);
        assert_eq!(sam3_prompt_new_object(&mut click, null_mut()), SAM3_OK);
        assert_eq!(sam3_prompt_add_points(click, &point, 1, null_mut()), SAM3_OK);
    }
    let (mut rust, mut c) = (Duration::MAX, Duration::MAX);
    let mut bytes = vec![0; picture.width() * picture.height()];
    for _ in 0..400 {
        shortest(&mut rust, || {
            let found = session.segment(&embedding, &prompt, &SegmentOptions::default()).unwrap();
            bytes.copy_from_slice(&found.instances[0].mask.to_u8());
        });
        let expected = bytes.clone();
        shortest(&mut c, || {
            let (mut result, mut size) = (null_mut(), bytes.len());
            // SAFETY: as above; the buffer has `size` bytes.
            unsafe {
                let prompts = [click.cast_const()];
                let status = sam3_segment(c_session, image, prompts.as_ptr(), 1, null(), &mut result, null_mut());
                assert_eq!(status, SAM3_OK);
                let to = bytes.as_mut_ptr().cast();
                let status = sam3_result_mask(result, 0, SAM3_MASK_U8, 0, to, 0, &mut size, null_mut());
                assert_eq!(status, SAM3_OK);
                sam3_result_free(result);
            }
        });
        assert_eq!(bytes, expected);
    }
    // SAFETY: used no more.
    unsafe {
        sam3_model_options_free(options);
        sam3_model_free(c_model);
        sam3_session_free(c_session);
        sam3_image_free(image);
        sam3_prompt_free(click);
    }
    let added = c.saturating_sub(rust);
    println!("a click of the fixture: {rust:?} through Rust, {c:?} through C, {added:?} more");
    // Measured: no difference that could be told from noise, 1.41 ms either way.
    assert!(added < rust / 50 + Duration::from_micros(20), "{added:?}");
}
