//! The answer to a call: instances over all prompts, and what each prompt has to say beside them.

use std::time::Duration;

use crate::instance::{Instance, Mask};
use crate::model::Stage;
use crate::prompt::LowResMask;

/// Everything found in one picture by one call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Segmentation {
    /// Columns of the picture, and of every mask.
    pub width: usize,
    /// Rows of the picture, and of every mask.
    pub height: usize,
    /// Instances of all prompts, best score first. [`Instance::prompt`] says which prompt.
    pub instances: Vec<Instance>,
    /// One answer per prompt, in the order asked.
    pub prompts: Vec<PromptAnswer>,
    pub(crate) low_res: Vec<LowResMask>,
}

impl Segmentation {
    /// The mask logits instance `i` was made from, at the model's resolution: feed them back as
    /// [`crate::MaskPrompt::Logits`] with another click for a refinement round. `None` if there is no instance `i`.
    pub fn logits(&self, i: usize) -> Option<&LowResMask> {
        self.low_res.get(i)
    }
}

/// What one prompt has to say beside its instances.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PromptAnswer {
    /// For a concept, the probability that it is in the picture at all (every instance's score is a product with it).
    /// For an object, the probability that there is one.
    pub presence: f32,
    /// Every pixel of the concept, if asked for; `None` for objects.
    pub semantic: Option<Mask>,
    /// Upstream's raw outputs, if asked for.
    pub raw: Vec<RawTensor>,
}

/// A raw output under upstream's name and shape, batch dimension included.
#[derive(Clone, Debug, PartialEq)]
pub struct RawTensor {
    /// `pred_logits`, `pred_boxes`, `presence_logits`, `pred_masks`, `semantic_seg`, `iou_scores` or
    /// `object_score_logits`.
    pub name: &'static str,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

/// Time spent per stage since the session was made or last asked.
#[derive(Clone, Debug, Default)]
pub struct Timings(Vec<(&'static str, Duration)>);

impl Timings {
    pub(crate) fn add(&mut self, stage: &'static str, time: Duration) {
        match self.0.iter_mut().find(|(name, _)| *name == stage) {
            Some((_, sum)) => *sum += time,
            None => self.0.push((stage, time)),
        }
    }

    pub(crate) fn add_stage(&mut self, stage: Stage, time: Duration) {
        self.add(stage.name(), time);
    }

    /// Stage names and times, in the order the stages first ran.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Duration)> + '_ {
        self.0.iter().copied()
    }
}
