//! The answer to a call: instances over all prompts, and what each prompt has to say beside them.

use std::time::Duration;

use crate::image::resize_bilinear_f32;
use crate::instance::{Instance, Mask};
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

    /// Whether instance `i` answers a concept; `false` for an object and where there is no instance `i`. An object's
    /// score is the model's own estimate of its mask's IoU, a concept's is a probability.
    pub fn is_concept(&self, i: usize) -> bool {
        let prompt = self.instances.get(i).and_then(|found| self.prompts.get(found.prompt));
        prompt.is_some_and(|p| p.concept)
    }

    /// The probabilities, `[height, width]` row-major, that [`Instance::mask`] of instance `i` was cut from: above the
    /// mask threshold is inside. `None` if there is no instance `i`.
    pub fn soft_mask(&self, i: usize) -> Option<Vec<f32>> {
        let low = self.low_res.get(i)?;
        let (side, width, height) = (low.side(), self.width, self.height);
        // In the order of the two post-processings of upstream: see `engine::postprocess`.
        if self.is_concept(i) {
            Some(low.probabilities(width, height))
        } else {
            let mut logits = resize_bilinear_f32(low.logits(), side, side, height, width);
            logits.iter_mut().for_each(|v| *v = sigmoid(*v));
            Some(logits)
        }
    }
}

impl LowResMask {
    /// Probabilities resized to `[height, width]`, row-major.
    ///
    /// # Panics
    /// If a side is 0.
    pub fn probabilities(&self, width: usize, height: usize) -> Vec<f32> {
        let probabilities: Vec<f32> = self.logits().iter().map(|&v| sigmoid(v)).collect();
        resize_bilinear_f32(&probabilities, self.side(), self.side(), height, width)
    }

    /// How little the mask depends on its threshold, 0 to 1: the pixels `offset` above the logit `threshold` over
    /// those not more than `offset` below it. The stability score of SAM's mask generator, where the offset is 1; 0
    /// where there are no pixels at all.
    pub fn stability(&self, threshold: f32, offset: f32) -> f32 {
        let above = |bound: f32| self.logits().iter().filter(|&&v| v > bound).count();
        let (inner, outer) = (above(threshold + offset), above(threshold - offset));
        if outer == 0 { 0.0 } else { inner as f32 / outer as f32 }
    }
}

/// `1 / (1 + e⁻ˣ)`
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
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
    /// The logits that mask was made from, at the model's resolution.
    pub semantic_logits: Option<LowResMask>,
    /// Whether this answers a concept; otherwise an object.
    pub concept: bool,
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

    /// Stage names and times, in the order the stages first ran.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Duration)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stability_compares_two_thresholds() {
        let mask = LowResMask::new(vec![3.0, 1.5, 0.5, -0.5, -0.9, -1.0, -2.0, -3.0, -4.0], 3).unwrap();
        // Two logits lie above 1, five above -1.
        assert_eq!(mask.stability(0.0, 1.0), 0.4);
        assert_eq!(mask.stability(10.0, 1.0), 0.0);
        assert_eq!(mask.stability(f32::NEG_INFINITY, 1.0), 1.0);
    }

    #[test]
    fn soft_masks_are_what_masks_are_cut_from() {
        let low = LowResMask::new(vec![4.0, -4.0, 1.0, -1.0], 2).unwrap();
        for concept in [true, false] {
            let soft = if concept {
                low.probabilities(6, 5)
            } else {
                resize_bilinear_f32(low.logits(), 2, 2, 5, 6).into_iter().map(sigmoid).collect()
            };
            let mask = Mask::from_fn(6, 5, |x, y| soft[y * 6 + x] > 0.5);
            let found = Instance { score: 1.0, bbox: [0.0; 4], mask, prompt: 0 };
            let answer = PromptAnswer { presence: 1.0, semantic: None, semantic_logits: None, concept, raw: vec![] };
            let all = Segmentation {
                width: 6,
                height: 5,
                instances: vec![found],
                prompts: vec![answer],
                low_res: vec![low.clone()],
            };
            assert_eq!(all.soft_mask(0).unwrap(), soft);
            assert_eq!(all.is_concept(0), concept);
            assert!(all.soft_mask(1).is_none() && !all.is_concept(1));
        }
    }
}
