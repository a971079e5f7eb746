//! What a caller may do while the model runs: watch it, stop it, look inside.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::ops::Ops;

/// The stages a caller is told about, in the order they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The picture through the ViT and its necks.
    EncodeImage,
    /// A phrase through the text encoder.
    EncodeText,
    /// Fusion and decoding of a concept prompt.
    Ground,
    /// Masks of a concept prompt's instances.
    Masks,
    /// A click, box or mask prompt through the mask decoder.
    Segment,
}

impl Stage {
    /// A short lower-case name, as in timing tables.
    pub fn name(self) -> &'static str {
        match self {
            Stage::EncodeImage => "encode_image",
            Stage::EncodeText => "encode_text",
            Stage::Ground => "ground",
            Stage::Masks => "masks",
            Stage::Segment => "segment",
        }
    }
}

/// How far a stage has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The stage that runs.
    pub stage: Stage,
    /// Share of it that is done, 0..=1.
    pub fraction: f32,
}

/// Called with each step's progress; `false` cancels.
pub type OnProgress<'a> = &'a (dyn Fn(Progress) -> bool + Sync);

/// Called with a name and the values of an intermediate result.
pub type OnTrace<'a> = &'a (dyn Fn(&str, &[f32]) + Sync);

/// The hooks of one call. All are optional, and free when absent.
#[derive(Clone, Copy, Default)]
pub struct Control<'a> {
    /// Set from another thread to stop the call at its next step.
    pub cancel: Option<&'a AtomicBool>,
    /// Told after each step; stops the call by returning `false`.
    pub progress: Option<OnProgress<'a>>,
    /// Given each named intermediate, for comparing with another implementation. Downloads it, so it is slow.
    pub trace: Option<OnTrace<'a>>,
}

impl Control<'_> {
    /// Reports that `done` of `total` steps of `stage` are enqueued, and stops the call if somebody wants it to.
    pub fn step(&self, stage: Stage, done: usize, total: usize) -> Result<()> {
        let go_on = self.progress.is_none_or(|f| f(Progress { stage, fraction: done as f32 / total as f32 }));
        if !go_on || self.cancel.is_some_and(|c| c.load(Ordering::Relaxed)) {
            return Err(Error::new(ErrorKind::Cancelled, format!("cancelled in stage {}", stage.name())));
        }
        Ok(())
    }

    /// Shows the first `len` elements of `act` under the name that `name` makes.
    pub fn see<O: Ops>(&self, ops: &O, name: impl FnOnce() -> String, act: &O::Act, len: usize) -> Result<()> {
        if let Some(trace) = self.trace {
            let mut values = vec![0.0; len];
            ops.download(act, 0, &mut values)?;
            trace(&name(), &values);
        }
        Ok(())
    }
}
