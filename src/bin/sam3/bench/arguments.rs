//! The arguments of `sam3 bench`.

use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, PathBufValueParser, PossibleValuesParser};
use clap::{Arg, ArgMatches, Command};
use sam3::{Error, Result, SegmentOptions};

use super::job::Path;
use crate::args::{self, model_args, positive, threshold};

/// Most sessions at once: each has scratch of its own, hundreds of megabytes at the published size.
const MAX_SESSIONS: usize = 256;
/// Most prompts of one call.
const MAX_PROMPTS: usize = 1024;
/// Most runs of one path: samples are kept.
const MAX_RUNS: usize = 1_000_000;

/// How the report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
    Csv,
    Markdown,
}

/// `sam3 bench`.
pub struct Bench {
    pub model: args::Model,
    /// A picture file; without one a picture is made up.
    pub image: Option<PathBuf>,
    /// Paths to measure; empty for all that the checkpoint has.
    pub paths: Vec<Path>,
    pub phrase: String,
    /// A click in pixels; near the middle without one.
    pub point: Option<[f32; 2]>,
    pub prompts: usize,
    pub options: SegmentOptions,
    pub warmup: usize,
    pub runs: usize,
    pub concurrency: usize,
    pub format: Format,
    pub compare: Option<PathBuf>,
}

/// The grammar, for clap.
pub fn command() -> Command {
    let count = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("N")
            .value_parser(positive())
            .allow_negative_numbers(true)
            .default_value(default)
            .help(help)
    };
    let words = |name: &'static str, values: &'static [&'static str]| {
        Arg::new(name).long(name).value_parser(PossibleValuesParser::new(values))
    };
    Command::new("bench")
        .about("Measures how long opening, the stages and whole answers take.")
        .long_about(
            "Measures how long opening, the stages and whole answers take.\n\nThree paths: a new picture with a phrase, \
             from the file's bytes to run lengths; a new phrase on a picture looked at before; a new click on it. Times \
             are milliseconds of wall clock.",
        )
        .arg(
            Arg::new("image")
                .value_name("IMAGE")
                .value_parser(PathBufValueParser::new())
                .help("The picture; one of 1280×853 is made up without it"),
        )
        .next_help_heading("Model")
        .args(model_args())
        .next_help_heading("Measurement")
        .arg(
            words("paths", &["picture", "phrase", "click"])
                .value_delimiter(',')
                .value_name("PATHS")
                .help("Which paths to measure, with commas; all by default"),
        )
        .arg(count("warmup", "2", "Runs of each path before the measured ones").value_parser(
            clap::builder::RangedU64ValueParser::<usize>::new().range(0..),
        ))
        .arg(count("runs", "10", "Measured runs of each path"))
        .arg(count("concurrency", "1", "Also measures so many sessions at once on the one model"))
        .next_help_heading("Work")
        .arg(
            Arg::new("text")
                .long("text")
                .value_name("PHRASE")
                .default_value("cat")
                .value_parser(NonEmptyStringValueParser::new())
                .help("The phrase"),
        )
        .arg(
            Arg::new("point")
                .long("point")
                .value_name("X,Y")
                .allow_hyphen_values(true)
                .help("The click, in pixels of the picture; near its middle by default"),
        )
        .arg(count("prompts", "1", "Phrases or clicks in one call"))
        .arg(threshold("threshold", "Keeps instances scored above this, 0 to 1; 0 makes every mask there is"))
        .arg(
            Arg::new("max-masks")
                .long("max-masks")
                .value_name("N")
                .value_parser(positive())
                .allow_negative_numbers(true)
                .help("At most so many instances, the best"),
        )
        .next_help_heading("Report")
        .arg(
            words("format", &["table", "json", "csv", "md"])
                .default_value("table")
                .help("json holds every sample, and is what --compare reads"),
        )
        .arg(
            Arg::new("compare")
                .long("compare")
                .value_name("OLD.json")
                .value_parser(PathBufValueParser::new())
                .help("Prints ratios to an earlier report, and which of them are more than noise"),
        )
}

impl Bench {
    /// Reads everything.
    pub fn parse(m: &ArgMatches) -> Result<Self> {
        let mut options = SegmentOptions::default();
        options.threshold = *m.get_one("threshold").expect("has a default");
        options.max_masks = m.get_one("max-masks").copied();
        let count = |name: &str, most: usize| {
            let n: usize = *m.get_one(name).expect("has a default");
            if n <= most { Ok(n) } else { Err(Error::invalid(format!("--{name}: expected at most {most}, found {n}"))) }
        };
        let mut paths: Vec<Path> = Vec::new();
        for word in m.get_many::<String>("paths").into_iter().flatten() {
            let path = Path::named(word).expect("clap knows the words");
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        Ok(Self {
            model: args::Model::parse(m)?,
            image: m.get_one("image").cloned(),
            paths,
            phrase: m.get_one::<String>("text").expect("has a default").clone(),
            point: m.get_one::<String>("point").map(|v| args::numbers("--point", v, "X,Y")).transpose()?,
            prompts: count("prompts", MAX_PROMPTS)?,
            options,
            warmup: count("warmup", MAX_RUNS)?,
            runs: count("runs", MAX_RUNS)?,
            concurrency: count("concurrency", MAX_SESSIONS)?,
            format: match m.get_one::<String>("format").expect("has a default").as_str() {
                "json" => Format::Json,
                "csv" => Format::Csv,
                "md" => Format::Markdown,
                _ => Format::Table,
            },
            compare: m.get_one("compare").cloned(),
        })
    }
}
