//! Outputs that cannot be written: exit code 1, and nothing half-written beside them.
#![cfg(unix)]

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::harness::{Desk, run};

/// Whether permissions bind whoever runs the tests.
fn bound(desk: &Desk) -> bool {
    let folder = desk.path("locked");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o555)).unwrap();
    let bound = std::fs::write(folder.join("x"), "x").is_err();
    let _ = std::fs::remove_file(folder.join("x"));
    bound
}

#[test]
fn a_folder_that_takes_no_files() {
    let desk = Desk::new("tiny-a");
    // Root may write anywhere but into the kernel's own file system.
    let locked = if bound(&desk) {
        "locked"
    } else if std::path::Path::new("/proc/self").exists() {
        "/proc"
    } else {
        return;
    };
    let before = desk.files();
    for option in ["-o", "--json", "--tensors", "--semantic"] {
        let path = format!("{locked}/a.png");
        desk.segment(&["--text", "cat", option, &path]).failed(1, &[locked, "cannot write"]);
    }
    for option in ["--masks", "--cutouts"] {
        let path = format!("{locked}/new");
        desk.segment(&["--text", "cat", option, &path]).failed(1, &[locked, "cannot write"]);
    }
    // Told before the work: not even the picture was looked for.
    let mut desk = desk;
    desk.picture = desk.path("nowhere.png");
    desk.segment(&["--text", "cat", "--json", &format!("{locked}/a")]).failed(1, &["cannot write into the folder"]);
    assert_eq!(desk.files(), before);
}

#[test]
fn devices_and_pipes_are_written_to() {
    let desk = Desk::new("tiny-a");
    if !std::path::Path::new("/dev/full").exists() {
        return;
    }
    let kind = |path: &str| std::fs::symlink_metadata(path).unwrap().file_type();
    let (null, full) = (kind("/dev/null"), kind("/dev/full"));
    desk.line("--point 20,30 --json /dev/null --tensors /dev/null").failed(2, &["of its own"]);
    desk.line("--point 20,30 --json /dev/null").ok();
    desk.line("--point 20,30 --json /dev/full").failed(1, &["/dev/full", "No space left"]);
    // A device must not become a file.
    assert_eq!((kind("/dev/null"), kind("/dev/full")), (null, full));
    let out = desk.line("--point 20,30 --json /dev/stdout").ok().out;
    assert!(out.starts_with('{') && out.contains("presence"), "{out}");
    assert_eq!(desk.files(), [""; 0]);
}

#[test]
fn a_link_is_followed_and_survives() {
    let desk = Desk::new("tiny-a");
    std::fs::create_dir(desk.path("there")).unwrap();
    std::fs::write(desk.path("there/real.json"), "old").unwrap();
    std::os::unix::fs::symlink("there/real.json", desk.path("link.json")).unwrap();
    desk.line("--point 20,30 --json link.json").ok();
    assert!(desk.path("link.json").is_symlink());
    assert!(desk.json("there/real.json")["instances"].is_array());
    assert_eq!(desk.files(), ["link.json", "there", "there/real.json"]);
}

#[test]
fn standard_output_that_is_full_or_closed() {
    let desk = Desk::new("tiny-a");
    for words in [&["--point", "20,30"][..], &["--point", "20,30", "--json", "-"]] {
        if let Ok(full) = std::fs::File::options().write(true).open("/dev/full") {
            let run = run_into(&desk, words, full.into());
            assert_eq!(run.0, 1, "{}", run.1);
            assert!(run.1.contains("standard output") && !run.1.contains("panicked"), "{}", run.1);
        }
        // A reader that leaves early, as `head` does, is no failure of the job.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let run = run_into(&desk, words, writer.into());
        assert_eq!((run.0, run.1.as_str()), (0, ""));
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = desk.command();
    command.arg("info").stdout(writer);
    run_quietly(command, 0);
    // Nobody listens to the message either: the exit code still says it.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = desk.segment_command(&["--point", "200,30"]);
    command.stderr(writer).stdout(Stdio::null());
    run_quietly(command, 2);
}

fn run_into(desk: &Desk, words: &[&str], out: Stdio) -> (i32, String) {
    let mut child = desk.segment_command(words).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (child.wait().unwrap().code().unwrap(), err)
}

fn run_quietly(mut command: std::process::Command, code: i32) {
    assert_eq!(command.status().unwrap().code(), Some(code));
}

#[test]
fn a_failed_job_leaves_earlier_files_as_they_were() {
    let desk = Desk::new("tiny-a");
    std::fs::write(desk.path("a.png"), "old").unwrap();
    std::fs::write(desk.path("a.json"), "old").unwrap();
    // The mask folder's first file is taken by a folder, which shows only when it is written.
    std::fs::create_dir_all(desk.path("m/mask_000.png/x")).unwrap();
    let before = desk.files();
    desk.line("--point 20,30 --masks m --json a.json --tensors t.safetensors").failed(1, &["mask_000.png"]);
    assert_eq!(desk.files(), before, "no part is left");
    assert_eq!(std::fs::read(desk.path("a.json")).unwrap(), b"old");
    run(desk.segment_command(&["--point", "99,99", "-o", "a.png"]).stdin(Stdio::null())).failed(2, &["99,99"]);
    assert_eq!(std::fs::read(desk.path("a.png")).unwrap(), b"old");
}
