//! Runs the program, and reads back what it left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use safetensors::{Dtype, SafeTensors};
use sam3::image::{ImageView, PixelFormat, save};
use serde_json::Value;

/// What a run said and how it ended.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self
    }

    /// Failed with `code`, said every word on stderr and nothing on stdout.
    #[track_caller]
    pub fn failed(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.out, "", "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in: {}", self.err);
        }
        assert!(self.err.ends_with('\n') && self.err.len() < 2000, "{}", self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
    }
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A folder for one job, and the checkpoint and picture it works on.
pub struct Desk {
    dir: tempfile::TempDir,
    pub model: PathBuf,
    pub picture: PathBuf,
}

impl Desk {
    pub fn new(name: &str) -> Self {
        let model = fixture(name);
        Self { dir: tempfile::tempdir().unwrap(), picture: model.join("input.png"), model }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program in this folder, without the variables of whoever runs the tests.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sam3"));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        for name in ["SAM3_MODEL", "SAM3_ISA", "SAM3_THREADS"] {
            command.env_remove(name);
        }
        command
    }

    /// `sam3 segment PICTURE --model MODEL WORDS`, on two threads unless the words say how many.
    pub fn segment_command(&self, words: &[&str]) -> Command {
        let mut command = self.command();
        command.arg("segment").arg(&self.picture).arg("--model").arg(&self.model);
        if !words.iter().any(|w| w.contains("--threads")) {
            command.args(["--threads", "2"]);
        }
        command.args(words);
        command
    }

    pub fn segment(&self, words: &[&str]) -> Run {
        run(&mut self.segment_command(words))
    }

    /// [`Desk::segment`] of words between spaces.
    pub fn line(&self, words: &str) -> Run {
        self.segment(&words.split_whitespace().collect::<Vec<_>>())
    }

    /// Every file and folder below the desk.
    pub fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.dir.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                found.push(path.strip_prefix(self.dir.path()).unwrap().to_str().unwrap().to_owned());
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        found.sort();
        found
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }

    pub fn tensors(&self, name: &str) -> Tensors {
        tensors(&self.path(name))
    }

    /// Saves grey pixels as a picture.
    pub fn grey(&self, name: &str, pixels: &[u8], width: usize, height: usize) {
        let view = ImageView::new(pixels, width, height, width, PixelFormat::Gray8).unwrap();
        save(&view, self.path(name)).unwrap();
    }

    /// A copy of the checkpoint to damage; later jobs use it.
    pub fn own_model(&mut self) -> PathBuf {
        let own = self.path("model");
        std::fs::create_dir(&own).unwrap();
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            std::fs::copy(self.model.join(name), own.join(name)).unwrap();
        }
        self.model = own.clone();
        own
    }
}

pub fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        code: output.status.code().expect("the program was not killed"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Shape and values by name.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub fn tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |t: &safetensors::tensor::TensorView<'_>| -> Vec<f32> {
        match t.dtype() {
            Dtype::F32 => t.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::I64 => t.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
            Dtype::U8 => t.data().iter().map(|&b| b.into()).collect(),
            other => panic!("{other:?}"),
        }
    };
    file.iter().map(|(name, t)| (name.to_string(), (t.shape().to_vec(), values(&t)))).collect()
}

/// Relative L2 distance; NaN, which fails every bound, for different lengths.
pub fn distance(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::NAN;
    }
    let square = |v: f64| v * v;
    let error: f64 = found.iter().zip(expected).map(|(&f, &e)| square(f64::from(f) - f64::from(e))).sum();
    let norm: f64 = expected.iter().map(|&e| square(e.into())).sum();
    (error / norm.max(1e-30)).sqrt()
}
