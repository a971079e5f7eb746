//! `sam3 bench`: how long things take, as a report that can be checked, kept and compared.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | the order of the measurement, and the report's schema |
//! | `arguments` | the command's grammar |
//! | `job` | the paths that are measured, alone and under load |
//! | `stats` | quantiles, and the interval of a median |
//! | `report` | the report as data, written to and read from JSON |
//! | `render` | the report as a table, CSV and Markdown |
//! | `compare` | two reports side by side |
//! | `system` | machine, build, memory, sums of files; `sha256` the sum |
//! | `sample` | the picture that is used when none is named |
//!
//! # What is measured
//!
//! Wall clock by the monotonic clock, in one process: opening the checkpoint; the first answer; then each path, first
//! some runs that are thrown away, then those that count, one after the other, without pauses. The page cache is taken
//! as it is found: a first opening after a restart also reads the disk. Sums of files are taken at the end, so that they
//! warm nothing.
//!
//! A path's total begins with its input in memory and ends with its masks as COCO run lengths. `picture` begins with the
//! bytes of the file; `phrase` and `click` with a picture looked at before. A phrase is new in every run: it differs in
//! blanks, which the model's memory of phrases holds for another one and the tokenizer does not. Stages are those of
//! `sam3 segment --json`: `decode` and `encode_output` around `resize`, `encode_image`, `encode_text`, `ground` (prompt
//! encoder, fusion and detector), `masks`, `segment` (a click through its prompt encoder and mask decoder) and
//! `postprocess` (masks at the picture's size). A stage that a device or a path does not have is not in the report. On a
//! GPU the copies to and from it are part of the stages that make them.
//!
//! # The schema, version 1
//!
//! Times are milliseconds (`_ms`, and every series), sizes bytes. New members may come without a new version; readers
//! ignore what they do not know.
//!
//! | member | what |
//! |---|---|
//! | `schema`, `version` | `"sam3.bench"`, 1 |
//! | `unix_time` | when it began, seconds since 1970 |
//! | `program` | `version`; `commit`, what the variable `SAM3_COMMIT` said when it was built, or null; `sha256` of the program's file; `build`, `release` or `debug` |
//! | `machine` | `cpu`, `cores` (physical), `isa`, `os`, `arch`, `memory_bytes`, `load_average` of the minute before; null where the system does not say |
//! | `model` | `path`, `files` (`name`, `bytes`, `sha256`), `layout`, `parameters`, `bytes`, `precision` (types of the stored weights), `image_size`, `layers` and `width` of the image encoder, `origin` and `random` (see `sam3_origin` in `sam3::weights::Config`), `device` in words |
//! | `settings` | `image` (`name`, `width`, `height`, `bytes`, `sha256`), `phrase`, `point`, `prompts` of a call, `threshold`, `max_masks`, `warmup`, `runs`, `concurrency` |
//! | `opening_ms` | from a path to a model that answers |
//! | `first` | the first answer: its `path`, `total_ms`, `stages_ms` as pairs |
//! | `paths[]` | `name`, `what`, `total` (a series), `stages[]` of `name` and `time` (a series), `per_second`, `instances`, `checksum`, `repeatable`, `load` |
//! | a series | `n`, `min`, `mean`, `median`, `p90`, `p95`, `p99`, `max`, `cv`, `samples` in order; quantiles of the nearest rank, so p99 of 20 samples is their maximum |
//! | `paths[].checksum` | SHA-256 over every number of the first measured answer: presences, then of each instance prompt, score, box, run lengths, logits. Two builds that have it alike compute the same bits |
//! | `paths[].repeatable` | whether the last measured answer, and the last of each session under load, has the same sum |
//! | `paths[].load` | with `--concurrency`: `sessions` on the one model, each asking on when it is answered; `latency` (a series over all), `per_second` together |
//! | `memory` | resident bytes: `peak_after_opening`, `peak_after_first`, `peak`; at the end `file_backed` (pages of the mapped checkpoint among them) and `anonymous` |
//! | `notes[]` | what a reader must know: random weights, a debug build, other load, few runs |
//! | `comparison` | with `--compare`: see `compare` |

mod arguments;
mod compare;
mod job;
mod render;
mod report;
mod sample;
mod sha256;
mod stats;
mod system;

use std::fs;
use std::io::IsTerminal;
use std::sync::atomic::AtomicUsize;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use sam3::image::Picture;
use sam3::{Error, ErrorKind, ImageEmbedding, Model, Result, Session};

pub use arguments::{Bench, command};
use job::{Job, Path, millis};
use report::{First, Image, Report, SCHEMA, Settings, VERSION};

use crate::outputs::say;
use crate::segment::io_error;

/// A load average, per core, above which other programs take part in the measurement.
const QUIET: f64 = 0.3;
/// Runs from which the 95th percentile is a sample of its own and not the maximum.
const FEW: usize = 21;

/// Measures and prints.
pub fn run(args: &Bench) -> Result<()> {
    // What can be wrong is told before minutes of measurement.
    let old = args.compare.as_deref().map(Report::read).transpose()?;
    args.model.check()?;
    let (name, bytes) = picture(args)?;
    let picture = Picture::decode(&bytes).map_err(|e| e.at(&name))?;
    let (width, height) = (picture.width(), picture.height());
    drop(picture);
    let point = args.point.unwrap_or([(width as f32 * 0.5).floor(), (height as f32 * 0.45).floor()]);
    sam3::Prompt::point(point[0], point[1]).check_within(width, height)?;
    let unix_time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    let machine = system::machine(args.model.options.isa.as_deref())?;

    let start = Instant::now();
    let model = args.model.open()?;
    let opening_ms = millis(start.elapsed());
    let peak_after_opening = system::peak();
    let paths = paths(args, &model)?;
    let settings = Settings {
        image: Image { name, width, height, bytes: bytes.len() as u64, sha256: sha256::of_bytes(&bytes) },
        phrase: args.phrase.clone(),
        point,
        prompts: args.prompts,
        threshold: args.options.threshold,
        max_masks: args.options.max_masks,
        warmup: args.warmup,
        runs: args.runs,
        concurrency: args.concurrency,
    };
    let job = Job {
        model: &model,
        bytes,
        width,
        height,
        phrase: &args.phrase,
        point,
        prompts: args.prompts,
        options: &args.options,
        asked: AtomicUsize::new(0),
    };
    let bar = bar(1 + paths.len() * (args.warmup + args.runs + usize::from(args.concurrency > 1)));
    let tell = || bar.inc(1);
    let mut session = model.session();
    bar.set_message("first answer");
    let (first, mut image) = first(&job, &mut session, paths[0])?;
    tell();
    let peak_after_first = system::peak();
    let mut measured = Vec::with_capacity(paths.len());
    for &path in &paths {
        bar.set_message(path.name());
        if path != Path::Picture && image.is_none() {
            image = Some(job.look(&mut session)?);
        }
        measured.push(job.measure(&mut session, path, image.as_ref(), args, &tell)?);
    }
    let memory = system::memory(peak_after_opening, peak_after_first);
    bar.set_message("sums of files");
    let info = model.info();
    let model = report::Model {
        path: args.model.name().into_owned(),
        files: system::weight_files(args.model.path.as_deref())?,
        layout: info.checkpoint.layout.to_owned(),
        parameters: info.checkpoint.parameters,
        bytes: info.checkpoint.bytes,
        precision: info.checkpoint.dtypes.keys().cloned().collect(),
        image_size: info.config.vision.image_size,
        layers: info.config.vision.layers,
        width: info.config.vision.hidden_size,
        origin: info.config.origin.clone(),
        random: info.config.is_random(),
        device: info.device.clone(),
    };
    let program = system::program();
    bar.finish_and_clear();
    let mut report = Report {
        schema: SCHEMA.to_owned(),
        version: VERSION,
        unix_time,
        program,
        machine,
        model,
        settings,
        opening_ms,
        first,
        paths: measured,
        memory,
        notes: Vec::new(),
    };
    report.notes = notes(&report);
    let comparison = old.map(|old| compare::compare(&old, &report));
    say(&render::render(&report, comparison.as_ref(), args.format))
}

/// The picture file to measure with, and its name.
fn picture(args: &Bench) -> Result<(String, Vec<u8>)> {
    let Some(path) = &args.image else { return Ok(("generated".to_owned(), sample::jpeg()?)) };
    // The decoder's own limit, applied before the file is read.
    let most = sam3::image::DecodeLimits::default().max_file;
    let unread = |e| io_error(path, "cannot be read", e);
    let length = fs::metadata(path).map_err(unread)?.len();
    if length > most {
        let message = format!("expected a picture file of at most {most} bytes, found {length}");
        return Err(Error::new(ErrorKind::Image, message).at(path.display()));
    }
    Ok((path.display().to_string(), fs::read(path).map_err(unread)?))
}

/// The paths to measure, in the order they are always measured.
fn paths(args: &Bench, model: &Model) -> Result<Vec<Path>> {
    if let Some(path) = args.paths.iter().find(|p| !p.possible(model)) {
        let message = format!("--paths {}: this checkpoint has no weights for it", path.name());
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let wanted = |p: &Path| args.paths.is_empty() || args.paths.contains(p);
    Ok(Path::ALL.into_iter().filter(|p| wanted(p) && p.possible(model)).collect())
}

/// The first answer. A path on an encoded picture begins with encoding it, which is not done twice.
fn first(job: &Job<'_>, session: &mut Session, path: Path) -> Result<(First, Option<ImageEmbedding>)> {
    let begin = Instant::now();
    let image = if path == Path::Picture { None } else { Some(job.look(session)?) };
    let mut stages: Vec<_> = session.take_timings().iter().collect();
    stages.extend(job.once(session, path, image.as_ref())?.stages);
    let total_ms = millis(begin.elapsed());
    let stages_ms = stages.into_iter().map(|(name, time)| (name.to_owned(), millis(time))).collect();
    Ok((First { path: path.name().to_owned(), total_ms, stages_ms }, image))
}

/// What a reader must know to read the numbers right.
fn notes(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    if report.model.random {
        let origin = report.model.origin.as_deref().unwrap_or_default();
        notes.push(format!("RANDOM WEIGHTS ({origin}): the times are true, the masks mean nothing"));
    }
    if report.program.build == "debug" {
        notes.push("debug build: its times say nothing about a release build".to_owned());
    }
    if let Some(load) = report.machine.load_average.filter(|l| *l > QUIET * report.machine.cores as f64) {
        notes.push(format!("load average {load} before the start: other programs may have taken part"));
    }
    if report.settings.runs < FEW {
        notes.push(format!("{} runs: high percentiles are the maximum", report.settings.runs));
    }
    for path in &report.paths {
        if path.instances == 0 {
            let threshold = report.settings.threshold;
            let name = &path.name;
            notes.push(format!(
                "{name}: nothing scored above {threshold}, so no mask was made; --threshold 0 makes all"
            ));
        }
        if !path.repeatable {
            notes.push(format!("{}: OUTPUTS DIFFERED between runs", path.name));
        }
    }
    notes
}

/// A bar on a terminal's standard error, nothing elsewhere.
fn bar(steps: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:22} [{wide_bar}] {pos}/{len}  {elapsed}");
    let bar = ProgressBar::new(steps as u64);
    bar.set_style(style.expect("the template is valid").progress_chars("=> "));
    bar
}
