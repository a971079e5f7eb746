//! The arguments, and the prompts they spell.
//!
//! Prompts depend on the order of options: `--object` separates objects, and an `--exemplar` belongs to the `--text`
//! before it. So options are read with their positions, and put together here.

use std::borrow::Cow;
use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, PathBufValueParser, RangedU64ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command};
use sam3::{Device, Error, ModelOptions, Result, SegmentOptions};

/// Model and machine, common to all subcommands.
pub struct Model {
    /// The checkpoint, if one was named; else the demo model answers, where it is built in.
    pub path: Option<PathBuf>,
    pub options: ModelOptions,
}

/// `sam3 segment`.
pub struct Segment {
    pub model: Model,
    pub image: PathBuf,
    pub concepts: Vec<ConceptArgs>,
    pub objects: Vec<ObjectArgs>,
    pub options: SegmentOptions,
    pub overlay: Option<PathBuf>,
    pub masks: Option<PathBuf>,
    pub cutouts: Option<PathBuf>,
    pub semantic: Option<PathBuf>,
    pub json: Option<PathBuf>,
    pub tensors: Option<PathBuf>,
}

/// One concept: a phrase, exemplars, or both.
#[derive(Debug, Default, PartialEq)]
pub struct ConceptArgs {
    pub text: Option<String>,
    pub exemplars: Vec<([f32; 4], bool)>,
}

/// One object: clicks, a box, a mask file.
#[derive(Debug, Default, PartialEq)]
pub struct ObjectArgs {
    pub points: Vec<([f32; 2], bool)>,
    pub bbox: Option<[f32; 4]>,
    pub mask: Option<PathBuf>,
}

/// The grammar, for clap.
pub fn command() -> Command {
    Command::new("sam3")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Segments pictures with SAM 3: by text, examples, clicks, boxes and masks.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(segment())
        .subcommand(crate::bench::command())
        .subcommands(served())
        .subcommand(
            Command::new("info")
                .about("Says what this machine offers and, with a model, what the checkpoint is.")
                .args(model_args()),
        )
}

/// `sam3 serve`, where it was built in.
fn served() -> Option<Command> {
    #[cfg(feature = "serve")]
    return Some(crate::serve::command());
    #[cfg(not(feature = "serve"))]
    None
}

pub fn model_args() -> [Arg; 3] {
    let path = || PathBufValueParser::new();
    [
        Arg::new("model").long("model").value_name("PATH").env("SAM3_MODEL").value_parser(path()).help(
            if cfg!(feature = "demo-model") {
                "Checkpoint: a directory with config.json and model.safetensors, or the .safetensors file; without it \
                 the embedded demo model answers"
            } else {
                "Checkpoint: a directory with config.json and model.safetensors, or the .safetensors file"
            },
        ),
        Arg::new("device")
            .long("device")
            .value_name("DEVICE")
            .default_value("auto")
            .help("auto (a GPU if one works), cpu, cuda[:N], or reference (slow f64 loops, for checking)"),
        Arg::new("threads")
            .long("threads")
            .value_name("N")
            .value_parser(positive())
            .allow_negative_numbers(true)
            .help("CPU threads; one per physical core by default"),
    ]
}

fn segment() -> Command {
    let many = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).action(ArgAction::Append).allow_hyphen_values(true)
    };
    let file = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).value_parser(PathBufValueParser::new())
    };
    Command::new("segment")
        .about("Segments one picture.")
        .long_about(
            "Segments one picture.\n\nCoordinates are pixels of the upright picture, from its top left corner. Concepts \
             (--text, --exemplar) find every instance; objects (--point, --box, --mask) are the one thing shown.",
        )
        .arg(Arg::new("image").value_name("IMAGE").required(true).value_parser(PathBufValueParser::new()).help(
            "JPEG, PNG, WebP, GIF, AVIF, BMP or TIFF",
        ))
        .next_help_heading("Concepts")
        .arg(
            many("text", "PHRASE", "Every instance of a concept; repeat for several concepts")
                .value_parser(NonEmptyStringValueParser::new()),
        )
        .arg(many(
            "exemplar",
            "X0,Y0,X1,Y1[,-]",
            "A box round one example (with ,- a counter-example), alone or for the --text before it",
        ))
        .next_help_heading("Objects")
        .arg(many("point", "X,Y[,-]", "A click on the object (with ,- beside it)"))
        .arg(many("box", "X0,Y0,X1,Y1", "A box round the object"))
        .arg(file("mask", "FILE", "A mask picture, or a file of --tensors to refine").action(ArgAction::Append))
        .arg(
            Arg::new("object")
                .long("object")
                .action(ArgAction::Append)
                .num_args(0)
                .default_missing_value("true")
                .help("Starts the next object"),
        )
        .arg(
            Arg::new("multimask")
                .long("multimask")
                .action(ArgAction::SetTrue)
                .help("Three masks for each object, for ambiguous clicks"),
        )
        .next_help_heading("Model")
        .args(model_args())
        .next_help_heading("Answer")
        .arg(threshold("threshold", "Keeps concept instances scored above this, 0 to 1"))
        .arg(threshold("mask-threshold", "A pixel belongs to a mask above this probability, 0 to 1"))
        .arg(
            Arg::new("max-masks")
                .long("max-masks")
                .value_name("N")
                .value_parser(positive())
                .allow_negative_numbers(true)
                .help("At most so many instances, the best"),
        )
        .next_help_heading("Output")
        .arg(file("overlay", "FILE", "Picture with tinted masks (png, jpeg or webp by its ending)").short('o'))
        .arg(file("masks", "DIR", "One black and white PNG per instance"))
        .arg(file("cutouts", "DIR", "One transparent PNG per instance"))
        .arg(file("semantic", "FILE", "Mask of all pixels of the concept; numbered for several concepts"))
        .arg(file("json", "FILE", "Scores, boxes and COCO run lengths; - is standard output"))
        .arg(file("tensors", "FILE", "Raw outputs as safetensors, under upstream's names"))
}

/// An option that takes a probability, 0.5 by default.
pub fn threshold(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("P")
        .default_value("0.5")
        .allow_hyphen_values(true)
        .value_parser(probability)
        .help(help)
}

fn probability(text: &str) -> Result<f32, String> {
    let value = text.parse().ok().filter(|v| (0.0..=1.0).contains(v));
    value.ok_or_else(|| "expected a number within 0 to 1".into())
}

/// A count that is not zero.
pub fn positive() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

impl Model {
    /// Reads `--model`, `--device` and `--threads`.
    pub fn parse(m: &ArgMatches) -> Result<Self> {
        let device: Device = m.get_one::<String>("device").expect("has a default").parse()?;
        let mut options = ModelOptions::on(device);
        options.threads = m.get_one("threads").copied();
        Ok(Self { path: m.get_one::<PathBuf>("model").cloned(), options })
    }

    /// Fails if no model can answer: none was named, none is built in. Cheap, to be asked before other work.
    pub fn check(&self) -> Result<()> {
        if self.path.is_some() || cfg!(feature = "demo-model") {
            return Ok(());
        }
        Err(Error::invalid("no model: name a checkpoint with --model PATH or the variable SAM3_MODEL"))
    }

    /// Opens the checkpoint, or the demo model if none was named: the one place that chooses.
    pub fn open(&self) -> Result<sam3::Model> {
        match &self.path {
            Some(path) => sam3::Model::open(path, &self.options),
            #[cfg(feature = "demo-model")]
            None => sam3::Model::demo(&self.options),
            #[cfg(not(feature = "demo-model"))]
            None => Err(self.check().expect_err("no model is built in")),
        }
    }

    /// What the model is called in reports: its path, or that it is the embedded one.
    pub fn name(&self) -> Cow<'_, str> {
        match &self.path {
            Some(path) => path.to_string_lossy(),
            None => "demo (embedded)".into(),
        }
    }
}

impl Segment {
    /// Reads everything and groups the prompts.
    pub fn parse(m: &ArgMatches) -> Result<Self> {
        let mut options = SegmentOptions::default();
        options.threshold = *m.get_one("threshold").expect("has a default");
        options.mask_threshold = *m.get_one("mask-threshold").expect("has a default");
        options.max_masks = m.get_one("max-masks").copied();
        options.multimask = m.get_flag("multimask");
        options.semantic = m.contains_id("semantic");
        options.raw = m.contains_id("tensors");
        let path = |name: &str| m.get_one::<PathBuf>(name).cloned();
        let (concepts, objects) = (concepts(m)?, objects(m)?);
        if concepts.is_empty() && objects.is_empty() {
            return Err(Error::invalid(
                "no prompt: say what to find with --text, --exemplar, --point, --box or --mask (see sam3 segment --help)",
            ));
        }
        if options.multimask && objects.is_empty() {
            return Err(Error::invalid(
                "--multimask: expected an object (--point, --box or --mask), found concepts only",
            ));
        }
        if options.semantic && concepts.is_empty() {
            return Err(Error::invalid("--semantic: expected a concept (--text or --exemplar), found objects only"));
        }
        Ok(Self {
            model: Model::parse(m)?,
            image: path("image").expect("is required"),
            concepts,
            objects,
            options,
            overlay: path("overlay"),
            masks: path("masks"),
            cutouts: path("cutouts"),
            semantic: path("semantic"),
            json: path("json"),
            tensors: path("tensors"),
        })
    }
}

/// Values of a repeatable option with their positions.
fn positioned<'a, T: Clone + Send + Sync + 'static>(
    m: &'a ArgMatches,
    name: &str,
) -> impl Iterator<Item = (usize, &'a T)> {
    let values = m.get_many::<T>(name).into_iter().flatten();
    m.indices_of(name).into_iter().flatten().zip(values)
}

/// Each `--text` is a concept; an exemplar joins the `--text` before it, or the first one, or stands alone.
fn concepts(m: &ArgMatches) -> Result<Vec<ConceptArgs>> {
    let texts: Vec<(usize, &String)> = positioned(m, "text").collect();
    let mut concepts: Vec<ConceptArgs> =
        texts.iter().map(|(_, t)| ConceptArgs { text: Some(t.to_string()), exemplars: Vec::new() }).collect();
    for (position, value) in positioned::<String>(m, "exemplar") {
        let exemplar = exemplar(value)?;
        let owner = texts.iter().rposition(|(p, _)| *p < position).unwrap_or(0);
        if concepts.is_empty() {
            concepts.push(ConceptArgs::default());
        }
        concepts[owner].exemplars.push(exemplar);
    }
    Ok(concepts)
}

/// `--object` ends an object and begins the next.
fn objects(m: &ArgMatches) -> Result<Vec<ObjectArgs>> {
    let mut cuts: Vec<usize> = m.indices_of("object").into_iter().flatten().collect();
    cuts.sort_unstable();
    let mut objects: Vec<ObjectArgs> = (0..=cuts.len()).map(|_| ObjectArgs::default()).collect();
    let owner = |position: usize| cuts.partition_point(|cut| *cut < position);
    for (position, value) in positioned::<String>(m, "point") {
        objects[owner(position)].points.push(point(value)?);
    }
    for (position, value) in positioned::<String>(m, "box") {
        let slot = &mut objects[owner(position)].bbox;
        if slot.replace(numbers("--box", value, "X0,Y0,X1,Y1")?).is_some() {
            return Err(Error::invalid("--box: an object has one box; start the next object with --object"));
        }
    }
    for (position, value) in positioned::<PathBuf>(m, "mask") {
        if objects[owner(position)].mask.replace(value.clone()).is_some() {
            return Err(Error::invalid("--mask: an object has one mask; start the next object with --object"));
        }
    }
    let empty = objects.iter().filter(|o| **o == ObjectArgs::default()).count();
    // Prompts may all stand behind the first --object.
    if objects.len() > 1 && objects[0] == ObjectArgs::default() && empty == 1 {
        objects.remove(0);
    } else if objects.len() > 1 && empty > 0 {
        return Err(Error::invalid("--object: expected a --point, --box or --mask for each object"));
    } else if empty == 1 {
        objects.clear();
    }
    Ok(objects)
}

/// Splits off a trailing `,-`.
fn sign(value: &str) -> (&str, bool) {
    match value.strip_suffix(",-") {
        Some(rest) => (rest, false),
        None => (value, true),
    }
}

fn exemplar(value: &str) -> Result<([f32; 4], bool)> {
    let (rest, positive) = sign(value);
    Ok((numbers("--exemplar", rest, "X0,Y0,X1,Y1[,-]")?, positive))
}

fn point(value: &str) -> Result<([f32; 2], bool)> {
    let (rest, positive) = sign(value);
    Ok((numbers("--point", rest, "X,Y[,-]")?, positive))
}

/// `N` finite numbers between commas.
pub fn numbers<const N: usize>(option: &str, value: &str, form: &str) -> Result<[f32; N]> {
    let parsed: Option<Vec<f32>> =
        value.split(',').map(|v| v.trim().parse().ok().filter(|v: &f32| v.is_finite())).collect();
    parsed
        .and_then(|v| v.try_into().ok())
        .ok_or_else(|| Error::invalid(format!("{option} {value}: expected {form} in pixels, such as 120,80")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Segment> {
        let line = ["sam3", "segment", "a.png"].into_iter().chain(words.split_whitespace());
        let matches = command().try_get_matches_from(line).map_err(|e| Error::invalid(e.to_string()))?;
        Segment::parse(matches.subcommand_matches("segment").unwrap())
    }

    #[test]
    fn the_grammar_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn exemplars_join_the_text_before_them() {
        let a = parse("--exemplar 1,2,3,4 --text cat --exemplar 5,6,7,8,- --text dog --exemplar 9,9,10,10").unwrap();
        let exemplars: Vec<usize> = a.concepts.iter().map(|c| c.exemplars.len()).collect();
        assert_eq!(exemplars, [2, 1]);
        assert_eq!(a.concepts[0].exemplars[1], ([5.0, 6.0, 7.0, 8.0], false));
        let alone = parse("--exemplar 1,2,3,4 --exemplar 1,2,3,5").unwrap();
        assert_eq!((alone.concepts.len(), alone.concepts[0].exemplars.len()), (1, 2));
    }

    #[test]
    fn objects_are_cut_by_position() {
        let a = parse("--point 1,2 --point 3,4,- --object --box 1,2,3,4 --object --mask m.png --point 5,6").unwrap();
        assert_eq!(a.objects.len(), 3);
        assert_eq!(a.objects[0].points, [([1.0, 2.0], true), ([3.0, 4.0], false)]);
        assert_eq!(a.objects[1].bbox, Some([1.0, 2.0, 3.0, 4.0]));
        assert_eq!((a.objects[2].points.len(), a.objects[2].mask.is_some()), (1, true));
        assert_eq!(parse("--object --point 1,2 --object --point 1,2").unwrap().objects.len(), 2);
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for line in [
            "",
            "--point 1",
            "--point 1,2,3",
            "--point a,b",
            "--box 1,2,3",
            "--box 1,2,3,nan",
            "--exemplar 1,2,3,4,+",
            "--object --object --point 1,2",
            "--text cat --object",
            "--box 1,2,3,4 --box 1,2,3,4",
            "--text cat --multimask",
            "--point 1,2 --semantic s.png",
            "--text cat --device gpu",
            "--point 1,inf",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
