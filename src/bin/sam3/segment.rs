//! `sam3 segment`: one picture, any prompts, the outputs asked for.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use sam3::image::Picture;
use sam3::{Concept, Error, ErrorKind, ExemplarBox, MaskPrompt, Object, Point, Prompt, Result, Segmentation};

use crate::args::{ConceptArgs, ObjectArgs, Segment};
use crate::{outputs, progress, tensors};

/// Times of a whole job, milliseconds, in the order they were spent.
pub type Times = Vec<(&'static str, f64)>;

/// Runs the job. Outputs are checked for what can be known beforehand, so that minutes of work are not lost to a typo.
pub fn run(args: &Segment) -> Result<()> {
    let begin = Instant::now();
    args.model.check()?;
    outputs::check(args)?;
    let mut times = Times::new();
    let mut timed = |name, since: Instant| times.push((name, millis(since.elapsed())));

    let start = Instant::now();
    let picture = Picture::open(&args.image)?;
    timed("decode", start);
    let prompts = prompts(args)?;
    prompts.iter().try_for_each(|p| p.check_within(picture.width(), picture.height()))?;
    let start = Instant::now();
    let model = args.model.open()?;
    timed("load", start);
    if let (None, Some(origin)) = (&args.model.path, &model.info().config.origin) {
        // Whether anybody reads it is not the job's concern.
        let _ = writeln!(std::io::stderr(), "sam3: no --model named, so this is {origin}");
    }

    if let Some(why) = model.info().passed_over.as_ref().filter(|why| why.driver) {
        let _ = writeln!(std::io::stderr(), "sam3: on the CPU, not on a GPU: {why}");
    }

    let mut session = model.session();
    let bar = progress::show(&mut session);
    let answer = session.run(&picture.view(), &prompts, &args.options);
    bar.finish_and_clear();
    let answer = answer?;
    times.extend(session.take_timings().iter().map(|(name, t)| (name, millis(t))));
    times.push(("total", millis(begin.elapsed())));

    let labels = labels(&prompts);
    outputs::write(args, &model, &picture, &answer, &labels, &times)?;
    if args.json.as_deref() != Some(Path::new("-")) {
        outputs::say(&table(&answer, &labels))?;
    }
    Ok(())
}

fn millis(t: Duration) -> f64 {
    (t.as_secs_f64() * 1e5).round() / 100.0
}

/// Concepts first, then objects.
fn prompts(args: &Segment) -> Result<Vec<Prompt>> {
    let mut prompts: Vec<Prompt> = args.concepts.iter().map(concept).collect();
    for o in &args.objects {
        prompts.push(object(o)?);
    }
    Ok(prompts)
}

fn concept(c: &ConceptArgs) -> Prompt {
    let exemplars = c.exemplars.iter().map(|&(xyxy, positive)| ExemplarBox { xyxy, positive }).collect();
    Prompt::Concept(Concept { text: c.text.clone(), exemplars })
}

fn object(o: &ObjectArgs) -> Result<Prompt> {
    let points = o.points.iter().map(|&([x, y], positive)| Point { x, y, positive }).collect();
    let mask = o.mask.as_deref().map(mask).transpose()?;
    Ok(Prompt::Object(Object { points, bbox: o.bbox, mask }))
}

/// A mask prompt: logits of an earlier `--tensors`, or a picture that is bright where the object is.
fn mask(path: &Path) -> Result<MaskPrompt> {
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors")) {
        return tensors::read_mask(path).map(MaskPrompt::Logits);
    }
    let picture = Picture::open(path)?;
    let pixels: Vec<u8> = picture.pixels().chunks_exact(3).map(|p| p[0].max(p[1]).max(p[2])).collect();
    Ok(MaskPrompt::Picture { pixels: pixels.into(), width: picture.width(), height: picture.height() })
}

/// A name for each prompt, unique within the call: the phrase, or `exemplar`, or `object`, numbered where it recurs.
fn labels(prompts: &[Prompt]) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for prompt in prompts {
        let base = prompt.label();
        let fresh = |name: &String| !labels.contains(name);
        let mut names = std::iter::once(base.to_owned()).chain((2..).map(|n| format!("{base} {n}")));
        labels.push(names.find(fresh).expect("numbers do not end"));
    }
    labels
}

/// The answer for people.
fn table(answer: &Segmentation, labels: &[String]) -> String {
    let mut lines = Vec::new();
    if answer.instances.is_empty() {
        lines.push("nothing found\n".to_owned());
    }
    for (i, found) in answer.instances.iter().enumerate() {
        let [x0, y0, x1, y1] = found.bbox.map(|v| v.round());
        let (label, score, area) = (&labels[found.prompt], found.score, found.area());
        lines.push(format!("{i:>3}  {score:.3}  {label:<20}  box {x0},{y0},{x1},{y1}  area {area}\n"));
    }
    for (label, prompt) in labels.iter().zip(&answer.prompts) {
        lines.push(format!("     {:.3}  {label:<20}  presence\n", prompt.presence));
    }
    lines.concat()
}

/// An error of a file that is not the library's.
pub fn io_error(path: &Path, what: &str, e: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, what).at(path.display()).with_source(e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique() {
        let prompts = [Prompt::text("cat"), Prompt::text("cat"), Prompt::point(0.0, 0.0), Prompt::text("cat 2")];
        assert_eq!(labels(&prompts), ["cat", "cat 2", "object", "cat 2 2"]);
    }
}
