//! Wrong arguments: exit code 2, a message that says what is expected, and no file left.

use crate::harness::{Desk, run};

#[test]
fn wrong_arguments_end_with_2_and_say_what_is_expected() {
    let desk = Desk::new("tiny-a");
    std::fs::write(desk.path("file"), "x").unwrap();
    std::fs::create_dir(desk.path("folder.png")).unwrap();
    let before = desk.files();
    let long = "word ".repeat(40);
    let cases: &[(&str, &[&str])] = &[
        ("", &["no prompt", "--text", "--help"]),
        ("--json -", &["no prompt"]),
        ("--object", &["--object", "each object"]),
        ("--point 1", &["--point 1", "X,Y[,-]"]),
        ("--point 1,2,3", &["--point 1,2,3", "X,Y"]),
        ("--point a,b", &["--point a,b"]),
        ("--point 1,2,+", &["--point 1,2,+"]),
        ("--point nan,2", &["--point nan,2"]),
        ("--point 1,inf", &["--point 1,inf"]),
        ("--point -1,2", &["point -1,2", "83×59"]),
        ("--point 83,2", &["point 83,2", "within the picture of 83×59"]),
        ("--point 2,59,-", &["point 2,59", "83×59"]),
        ("--box 1,2,3", &["--box 1,2,3", "X0,Y0,X1,Y1"]),
        ("--box 1,2,3,nan", &["--box"]),
        ("--box 1,2,inf,4", &["--box"]),
        ("--box 30,2,3,40", &["box 30,2,3,40", "left top corner first"]),
        ("--box 3,40,30,4", &["left top corner first"]),
        ("--box 3,4,3,40", &["left top corner first"]),
        ("--box 0,0,84,59", &["box 0,0,84,59", "83×59"]),
        ("--box -1,0,84,59", &["83×59"]),
        ("--box 1,2,3,4 --box 1,2,3,4", &["one box", "--object"]),
        ("--mask file --mask file", &["one mask", "--object"]),
        ("--exemplar 1,2,3,4,+", &["--exemplar", "[,-]"]),
        ("--exemplar 30,2,3,40", &["exemplar 30,2,3,40", "left top"]),
        ("--exemplar 0,0,10,60,-", &["exemplar 0,0,10,60", "83×59"]),
        ("--text cat --exemplar 0,0,1,nan", &["--exemplar"]),
        ("--object --object --point 1,2", &["--object", "each object"]),
        ("--point 1,2 --object", &["--object"]),
        ("--text cat --object", &["--object"]),
        ("--text cat --multimask", &["--multimask", "object"]),
        ("--point 1,2 --semantic s.png", &["--semantic", "concept"]),
        ("--text cat --threshold 1.5", &["--threshold", "0 to 1"]),
        ("--text cat --threshold -0.1", &["--threshold", "0 to 1"]),
        ("--text cat --threshold nan", &["--threshold", "0 to 1"]),
        ("--text cat --threshold half", &["--threshold", "0 to 1"]),
        ("--text cat --mask-threshold inf", &["--mask-threshold", "0 to 1"]),
        ("--text cat --max-masks 0", &["--max-masks", "1"]),
        ("--text cat --max-masks -1", &["--max-masks"]),
        ("--text cat --threads 0", &["--threads", "1"]),
        ("--text cat --threads 99999999999999999999", &["--threads"]),
        ("--text cat --device gpu", &["auto, cpu, cuda", "\"gpu\""]),
        ("--text cat --device cuda:x", &["cuda:x"]),
        ("--text cat -o over.gif", &["over.gif", "png, jpg, jpeg or webp"]),
        ("--text cat -o over", &["over", "png"]),
        ("--text cat --semantic s.tiff", &["s.tiff"]),
        ("--text cat -o nowhere/a.png", &["nowhere/a.png", "existing folder"]),
        ("--text cat --json nowhere/a.json", &["nowhere", "existing folder"]),
        ("--text cat --tensors file/a.safetensors", &["existing folder"]),
        ("--text cat -o folder.png", &["folder.png", "found a folder"]),
        ("--text cat --masks file", &["file", "expected a folder"]),
        ("--text cat --cutouts file/deeper", &["file/deeper", "expected a folder"]),
        ("--text cat -o a.png --semantic a.png", &["a.png", "of its own"]),
        ("--text cat --json a --tensors a", &["of its own"]),
        ("--text cat another.png", &["another.png"]),
        ("--text cat --colour red", &["--colour"]),
        ("--text", &["--text"]),
    ];
    for (line, words) in cases {
        desk.line(line).failed(2, words);
    }
    desk.segment(&["--text", ""]).failed(2, &["--text"]);
    desk.segment(&["--text", " \t"]).failed(2, &["expected a phrase"]);
    desk.segment(&["--text", &long]).failed(2, &["32 tokens", "fewer words"]);
    desk.segment(&["--text", &"a".repeat(20_000)]).failed(2, &["16384 bytes"]);
    desk.segment(&["--mask", ""]).failed(2, &["--mask"]);
    assert_eq!(desk.files(), before, "wrong arguments leave nothing");
}

#[test]
fn wrong_arguments_are_told_before_the_model_is_opened() {
    // What a model would take seconds to load is not even there: the arguments are the error that is reported.
    let mut desk = Desk::new("tiny-a");
    desk.model = desk.path("no-model");
    for line in [
        "--point 100,2",
        "--box 9,9,3,3",
        "--text cat --threshold 2",
        "--text cat -o nowhere/a.png",
        "--text cat --threads 0",
        "--exemplar 0,0,100,5",
    ] {
        let run = desk.line(line);
        assert!(!run.err.contains("no-model"), "{line}: {}", run.err);
        run.failed(2, &[]);
    }
    desk.line("--text cat").failed(1, &["no-model"]);
}

#[test]
fn help_version_and_subcommands() {
    let desk = Desk::new("tiny-a");
    let sam3 = |words: &[&str]| run(desk.command().args(words));
    assert!(sam3(&["--version"]).ok().out.starts_with("sam3 "));
    let help = sam3(&["segment", "--help"]).ok().out;
    for option in [
        "--text",
        "--exemplar",
        "--point",
        "--box",
        "--mask",
        "--object",
        "--multimask",
        "--model",
        "SAM3_MODEL",
        "--device",
        "--threads",
        "--threshold",
        "--mask-threshold",
        "--max-masks",
        "--overlay",
        "--masks",
        "--cutouts",
        "--semantic",
        "--json",
        "--tensors",
    ] {
        assert!(help.contains(option), "no {option} in the help");
    }
    sam3(&[]).failed(2, &["Usage", "segment", "info"]);
    sam3(&["segment"]).failed(2, &["IMAGE"]);
    sam3(&["segmentation"]).failed(2, &["segmentation"]);
    #[cfg(not(feature = "demo-model"))]
    sam3(&["segment", desk.picture.to_str().unwrap(), "--text", "cat"])
        .failed(2, &["no model", "--model", "SAM3_MODEL"]);
}

#[cfg(unix)]
#[test]
fn arguments_that_are_not_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let desk = Desk::new("tiny-a");
    let odd = OsStr::from_bytes(b"odd-\xff.png");
    run(desk.segment_command(&["--text"]).arg(odd)).failed(2, &["UTF-8"]);
    // A file name need not be text.
    let path = desk.path("").join(odd);
    std::fs::copy(&desk.picture, &path).unwrap();
    run(desk.segment_command(&["--json", "a.json"]).arg("--mask").arg(odd)).ok();
    let mut command = desk.command();
    command.arg("segment").arg(odd).args(["--point", "1,2", "--json", "-", "--model"]).arg(&desk.model);
    assert!(run(&mut command).ok().out.contains("odd-\u{fffd}.png"));
}
