//! The report as it stands in JSON; the module's text in `mod.rs` says what each member means.

use sam3::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::stats::Series;
use crate::segment::io_error;

/// The name of the format.
pub const SCHEMA: &str = "sam3.bench";
/// Its version: raised when a member changes its meaning or goes; new members do not raise it.
pub const VERSION: u32 = 1;
/// Longest report that is read back. A thousand runs of everything have less than 1 MB.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub schema: String,
    pub version: u32,
    /// Seconds since 1970, when the measurement began.
    pub unix_time: u64,
    pub program: Program,
    pub machine: Machine,
    pub model: Model,
    pub settings: Settings,
    pub opening_ms: f64,
    pub first: First,
    pub paths: Vec<Measured>,
    pub memory: Memory,
    pub notes: Vec<String>,
}

/// The build.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    pub version: String,
    /// What `SAM3_COMMIT` said when this was built.
    pub commit: Option<String>,
    /// Of the program's own file: two builds are one if this is.
    pub sha256: Option<String>,
    /// `release` or `debug`.
    pub build: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: Option<String>,
    pub cores: usize,
    pub isa: String,
    pub os: String,
    pub arch: String,
    pub memory_bytes: Option<u64>,
    /// Of the minute before the measurement: what else ran.
    pub load_average: Option<f64>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    pub path: String,
    pub files: Vec<WeightFile>,
    pub layout: String,
    pub parameters: u64,
    pub bytes: u64,
    /// Types of the stored weights.
    pub precision: Vec<String>,
    pub image_size: usize,
    /// Of the image encoder.
    pub layers: usize,
    pub width: usize,
    pub origin: Option<String>,
    pub random: bool,
    /// Device, threads, kernels, in words.
    pub device: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightFile {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

/// What was asked.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub image: Image,
    pub phrase: String,
    pub point: [f32; 2],
    pub prompts: usize,
    pub threshold: f32,
    pub max_masks: Option<usize>,
    pub warmup: usize,
    pub runs: usize,
    pub concurrency: usize,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// The file, or `generated`.
    pub name: String,
    pub width: usize,
    pub height: usize,
    pub bytes: u64,
    pub sha256: String,
}

/// The first answer after opening.
#[derive(Debug, Serialize, Deserialize)]
pub struct First {
    pub path: String,
    pub total_ms: f64,
    pub stages_ms: Vec<(String, f64)>,
}

/// One path.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    pub name: String,
    pub what: String,
    pub total: Series,
    pub stages: Vec<Stage>,
    /// Calls per second, one after the other.
    pub per_second: f64,
    /// Masks in one answer.
    pub instances: usize,
    /// SHA-256 of the answer's numbers.
    pub checksum: String,
    /// Whether all answers whose sum was taken had that one.
    pub repeatable: bool,
    pub load: Option<Load>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Stage {
    pub name: String,
    pub time: Series,
}

/// The path under load.
#[derive(Debug, Serialize, Deserialize)]
pub struct Load {
    pub sessions: usize,
    pub latency: Series,
    /// Calls per second, all sessions together.
    pub per_second: f64,
}

/// Resident memory of the process so far, bytes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Memory {
    pub peak_after_opening: Option<u64>,
    pub peak_after_first: Option<u64>,
    pub peak: Option<u64>,
    /// At the end: pages of the mapped files, and all others.
    pub file_backed: Option<u64>,
    pub anonymous: Option<u64>,
}

impl Report {
    /// Reads back the JSON of an earlier run.
    pub fn read(path: &Path) -> Result<Self> {
        let unread = |e| io_error(path, "cannot be read", e);
        let mut text = String::new();
        File::open(path).map_err(unread)?.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unread)?;
        if text.len() as u64 > MAX_BYTES {
            let message = format!("expected a report of at most {MAX_BYTES} bytes, found more");
            return Err(Error::new(ErrorKind::Io, message).at(path.display()));
        }
        Self::parse(&text).map_err(|e| e.at(path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
            version: u32,
        }
        let damaged =
            |e| Error::invalid("expected a report of sam3 bench --format json, found something else").with_source(e);
        let head: Head = serde_json::from_str(text).map_err(damaged)?;
        if (head.schema.as_str(), head.version) != (SCHEMA, VERSION) {
            return Err(Error::invalid(format!(
                "expected a report of schema {SCHEMA} version {VERSION}, found {} version {}",
                head.schema.chars().take(40).collect::<String>(),
                head.version
            )));
        }
        let mut report: Report = serde_json::from_str(text).map_err(damaged)?;
        for path in &mut report.paths {
            let loads = path.load.iter_mut().map(|l| &mut l.latency);
            for series in path.stages.iter_mut().map(|s| &mut s.time).chain([&mut path.total]).chain(loads) {
                // The samples are what was measured; whatever else the file says of them is computed anew.
                let samples = std::mem::take(&mut series.samples);
                *series = Series::new(samples)
                    .ok_or_else(|| Error::invalid("expected times of 0 ms or more in each series, found others"))?;
            }
        }
        Ok(report)
    }
}
