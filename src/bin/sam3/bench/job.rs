//! What is measured: the three paths, their stages, and the same under load.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sam3::image::Picture;
use sam3::instance::rle;
use sam3::{ImageEmbedding, Model, Prompt, Result, SegmentOptions, Segmentation, Session};

use super::arguments::Bench;
use super::report::{Load, Measured, Stage};
use super::sha256::Sha256;
use super::stats::Series;

/// A way through the engine that a user waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// A picture never seen, with a phrase (with a click, where the checkpoint takes no phrases).
    Picture,
    /// A phrase never read, on a picture looked at before.
    Phrase,
    /// A click on a picture looked at before.
    Click,
}

impl Path {
    pub const ALL: [Self; 3] = [Self::Picture, Self::Phrase, Self::Click];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Picture => "picture",
            Self::Phrase => "phrase",
            Self::Click => "click",
        }
    }

    /// Whether the checkpoint has the weights for it; every checkpoint has those for one kind of prompt.
    pub fn possible(self, model: &Model) -> bool {
        let config = &model.info().config;
        match self {
            Self::Picture => true,
            Self::Phrase => config.detector.is_some(),
            Self::Click => config.tracker.is_some(),
        }
    }

    fn what(self, phrases: bool) -> &'static str {
        match self {
            Self::Picture if phrases => "new picture and new phrase, from the file's bytes to run lengths",
            Self::Picture => "new picture with a click, from the file's bytes to run lengths",
            Self::Phrase => "new phrase on an encoded picture, to run lengths",
            Self::Click => "new click on an encoded picture, to run lengths",
        }
    }
}

/// Everything the runs have in common.
pub struct Job<'a> {
    pub model: &'a Model,
    /// The picture file.
    pub bytes: Vec<u8>,
    pub width: usize,
    pub height: usize,
    pub phrase: &'a str,
    pub point: [f32; 2],
    pub prompts: usize,
    pub options: &'a SegmentOptions,
    /// Phrases asked so far.
    pub asked: AtomicUsize,
}

/// One run of one path.
pub struct Run {
    pub total: Duration,
    pub stages: Vec<(&'static str, Duration)>,
    pub answer: Segmentation,
}

impl Job<'_> {
    /// Runs `path` once and times it. `image` is the encoded picture of the paths that want one.
    pub fn once(&self, session: &mut Session, path: Path, image: Option<&ImageEmbedding>) -> Result<Run> {
        let phrases = match path {
            Path::Picture => Path::Phrase.possible(self.model),
            Path::Phrase => true,
            Path::Click => false,
        };
        let prompts = self.questions(phrases);
        session.take_timings();
        let mut stages = Vec::new();
        let begin = Instant::now();
        let answer = match image.filter(|_| path != Path::Picture) {
            Some(image) => session.segment(image, &prompts, self.options)?,
            None => {
                let picture = Picture::decode(&self.bytes)?;
                stages.push(("decode", begin.elapsed()));
                session.run(&picture.view(), &prompts, self.options)?
            }
        };
        let output = Instant::now();
        let written = encode_output(&answer);
        let end = Instant::now();
        std::hint::black_box(written);
        stages.extend(session.take_timings().iter());
        stages.push(("encode_output", end - output));
        Ok(Run { total: end - begin, stages, answer })
    }

    /// The picture, looked at.
    pub fn look(&self, session: &mut Session) -> Result<ImageEmbedding> {
        session.encode(&Picture::decode(&self.bytes)?.view())
    }

    /// The prompts of one call.
    fn questions(&self, phrases: bool) -> Vec<Prompt> {
        let question = |i: usize| {
            if phrases {
                Prompt::text(respaced(self.phrase, self.asked.fetch_add(1, Ordering::Relaxed)))
            } else {
                let [x, y] = self.place(i);
                Prompt::point(x, y)
            }
        };
        (0..self.prompts).map(question).collect()
    }

    /// Where the i-th click goes: the first where it was asked for, the others spread from there by the additive
    /// recurrence of the plastic number, which leaves no corner of the picture empty (Roberts' R₂ sequence).
    fn place(&self, i: usize) -> [f32; 2] {
        let (w, h) = (self.width as f32, self.height as f32);
        let spread = |start: f32, step: f64, size: f32| {
            let share = (f64::from(start / size) + step * i as f64).fract();
            (share as f32 * size).min(size - 0.5)
        };
        if i == 0 {
            return self.point;
        }
        [spread(self.point[0], 0.754_877_666_246_693, w), spread(self.point[1], 0.569_840_290_998_053, h)]
    }

    /// Measures `path`: runs that are thrown away, runs that count, then the same from several sessions at once, as
    /// many as `args` says. `tell` hears of every finished run.
    pub fn measure(
        &self,
        session: &mut Session,
        path: Path,
        image: Option<&ImageEmbedding>,
        args: &Bench,
        tell: &dyn Fn(),
    ) -> Result<Measured> {
        let (runs, sessions) = (args.runs, args.concurrency);
        for _ in 0..args.warmup {
            self.once(session, path, image)?;
            tell();
        }
        let mut times: Vec<Duration> = Vec::with_capacity(runs);
        let mut stages: Vec<(&'static str, Vec<f64>)> = Vec::new();
        let (mut sum, mut repeatable, mut instances) = (String::new(), true, 0);
        for i in 0..runs {
            let run = self.once(session, path, image)?;
            times.push(run.total);
            for (name, time) in run.stages {
                match stages.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, samples)) => samples.push(millis(time)),
                    None => stages.push((name, vec![millis(time)])),
                }
            }
            // Outside of the measured time, and not in every run: sums of hundreds of masks sweep the caches.
            if i == 0 || i + 1 == runs {
                let found = checksum(&run.answer);
                repeatable &= sum.is_empty() || sum == found;
                (sum, instances) = (found, run.answer.instances.len());
            }
            tell();
        }
        let load = (sessions > 1).then(|| self.load(path, image, runs, sessions, &sum, tell)).transpose()?;
        let load = load.map(|(load, same)| {
            repeatable &= same;
            load
        });
        let seconds: f64 = times.iter().map(Duration::as_secs_f64).sum();
        let series = |samples| Series::new(samples).expect("there are samples, and times are finite");
        Ok(Measured {
            name: path.name().to_owned(),
            what: path.what(Path::Phrase.possible(self.model)).to_owned(),
            total: series(times.iter().map(|t| millis(*t)).collect()),
            stages: stages.into_iter().map(|(name, s)| Stage { name: name.to_owned(), time: series(s) }).collect(),
            per_second: runs as f64 / seconds,
            instances,
            checksum: sum,
            repeatable,
            load,
        })
    }

    /// `sessions` sessions at once, each asking its next question when the last one is answered: a closed loop, so
    /// that a slow answer also delays the question after it. Also returns whether their last answers have the sum
    /// `expected`.
    fn load(
        &self,
        path: Path,
        image: Option<&ImageEmbedding>,
        runs: usize,
        sessions: usize,
        expected: &str,
        tell: &dyn Fn(),
    ) -> Result<(Load, bool)> {
        let start = Barrier::new(sessions);
        let worker = || -> Result<(Instant, Instant, Vec<f64>, String)> {
            let mut session = self.model.session();
            let warm = self.once(&mut session, path, image);
            // Everybody waits for everybody, whatever befell the warm-up.
            start.wait();
            warm?;
            let begin = Instant::now();
            let mut samples = Vec::with_capacity(runs);
            let mut last = None;
            for _ in 0..runs {
                let run = self.once(&mut session, path, image)?;
                samples.push(millis(run.total));
                last = Some(run.answer);
            }
            let end = Instant::now();
            Ok((begin, end, samples, last.map(|a| checksum(&a)).unwrap_or_default()))
        };
        let results: Result<Vec<_>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..sessions).map(|_| scope.spawn(worker)).collect();
            let join = |t: std::thread::ScopedJoinHandle<'_, _>| match t.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().map(join).collect()
        });
        let results = results?;
        tell();
        let begin = results.iter().map(|r| r.0).min().expect("there are sessions");
        let end = results.iter().map(|r| r.1).max().expect("there are sessions");
        let same = results.iter().all(|r| r.3 == expected);
        let samples: Vec<f64> = results.into_iter().flat_map(|r| r.2).collect();
        let per_second = samples.len() as f64 / (end - begin).as_secs_f64();
        let latency = Series::new(samples).expect("there are samples, and times are finite");
        Ok((Load { sessions, latency, per_second }, same))
    }
}

/// The phrase with the number `i` behind it, in binary digits of spaces and tabs: text that the model's memory of
/// phrases has not seen, and the same tokens for the same work, since CLIP's tokenizer drops blanks at the end.
fn respaced(phrase: &str, i: usize) -> String {
    let mut text = phrase.to_owned();
    let mut rest = i + 1;
    while rest > 0 {
        text.push(if rest & 1 == 1 { ' ' } else { '\t' });
        rest >>= 1;
    }
    text
}

/// Masks as COCO's compressed run lengths, what `sam3 segment --json` writes.
fn encode_output(answer: &Segmentation) -> Vec<String> {
    answer.instances.iter().map(|found| rle::encode_coco(&found.mask)).collect()
}

/// A sum over every number of an answer, bit for bit, in an order that does not depend on the machine.
fn checksum(answer: &Segmentation) -> String {
    let mut sum = Sha256::new();
    for prompt in &answer.prompts {
        sum.update(&prompt.presence.to_bits().to_le_bytes());
    }
    for (i, found) in answer.instances.iter().enumerate() {
        sum.update(&(found.prompt as u64).to_le_bytes());
        for value in [&[found.score], found.bbox.as_slice()].concat() {
            sum.update(&value.to_bits().to_le_bytes());
        }
        sum.update(rle::encode_coco(&found.mask).as_bytes());
        if let Some(low) = answer.logits(i) {
            let bytes: Vec<u8> = low.logits().iter().flat_map(|v| v.to_bits().to_le_bytes()).collect();
            sum.update(&bytes);
        }
    }
    sum.finish()
}

pub fn millis(t: Duration) -> f64 {
    t.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_differ_in_blanks_alone() {
        let phrases: Vec<String> = (0..300).map(|i| respaced("a cat", i)).collect();
        for (i, phrase) in phrases.iter().enumerate() {
            assert_eq!(phrase.trim_end(), "a cat");
            assert!(!phrases[..i].contains(phrase), "{i}");
        }
    }
}
