//! Programs that run on the simulated GPU, and the log of what they asked its driver for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether this runs under `tools/with_simulated_gpu.sh`, whose settings these tests play with. A real GPU has none.
pub fn simulated() -> bool {
    let paths = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|path| path.to_string_lossy().contains("simulated-gpu"));
    if !found {
        println!("skipped: not under tools/with_simulated_gpu.sh");
    }
    found
}

pub fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-a")
}

/// What a run left.
pub struct Run {
    pub ok: bool,
    pub out: String,
    pub err: String,
    /// Lines of the driver's log.
    pub log: Vec<String>,
}

impl Run {
    /// How often the driver was asked for something.
    pub fn count(&self, what: &str) -> usize {
        self.log.iter().filter(|line| line.starts_with(what)).count()
    }

    /// Everything that was taken was given back.
    #[track_caller]
    pub fn nothing_is_left(&self) {
        let pairs = [
            ("retain", "release"),
            ("load", "unload"),
            ("create stream", "destroy stream"),
            ("create graph", "destroy graph"),
            ("create event", "destroy event"),
        ];
        for (take, give) in pairs {
            assert_eq!(self.count(take), self.count(give), "{take} and {give} in {:?}\n{}", self.log, self.err);
        }
        let mut bytes = BTreeMap::<&str, isize>::new();
        for line in &self.log {
            if let Some(n) = line.strip_prefix("allocate ") {
                *bytes.entry(n).or_default() += 1;
            } else if let Some(n) = line.strip_prefix("free ") {
                *bytes.entry(n).or_default() -= 1;
            }
        }
        bytes.retain(|_, n| *n != 0);
        assert!(bytes.is_empty(), "blocks by their bytes that are left: {bytes:?}\n{}", self.err);
    }

    #[track_caller]
    pub fn says(&self, words: &[&str]) {
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in: {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}

/// Runs a command with settings of the simulated driver.
pub fn run(command: &mut Command, settings: &[(&str, &str)]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    command.env_remove("SAM3_MODEL").env_remove("SAM3_ISA").env("SAM3_SIM_LOG", &log).current_dir(folder.path());
    command.envs(settings.iter().copied());
    let output = command.output().unwrap();
    let log = std::fs::read_to_string(log).unwrap_or_default();
    Run {
        ok: output.status.success(),
        out: String::from_utf8_lossy(&output.stdout).into(),
        err: String::from_utf8_lossy(&output.stderr).into(),
        log: log.lines().map(str::to_owned).collect(),
    }
}

/// The command line on the tiny model: a click.
pub fn click(device: &str, settings: &[(&str, &str)]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sam3"));
    command.arg("segment").arg(fixture().join("input.png")).arg("--model").arg(fixture());
    command.args(["--point", "20,30", "--json", "-", "--device", device]);
    run(&mut command, settings)
}

/// `sam3 info` without a model.
pub fn info(settings: &[(&str, &str)]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sam3"));
    run(command.arg("info"), settings)
}

/// One of this program's ignored tests, in a process of its own. Both precisions go through the same host code; f32 is the
/// faster one to simulate.
pub fn child(name: &str, settings: &[(&str, &str)]) -> Run {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]).env("SAM3_PRECISION", "f32");
    let run = run(&mut command, settings);
    assert!(run.out.contains("1 passed") || !run.ok, "{} {}", run.out, run.err);
    run
}
