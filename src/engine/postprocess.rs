//! From logits to masks at the picture's size, by upstream's post-processing (`image_processing_sam3.py`).
//!
//! For concepts σ comes first and the bilinear resize after it (`post_process_instance_segmentation`); for objects the
//! logits are resized and compared with the threshold's logit (`post_process_masks`). Masks are made as one bit per
//! pixel ([`crate::ops::Ops::cut`]), so no map of the picture's size in f32 ever exists.

use crate::error::Result;
use crate::instance::Mask;
use crate::ops::{Compared, Cut};

/// `1 / (1 + e⁻ˣ)`
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// `σ⁻¹(p)`, infinite at 0 and 1.
pub fn logit(p: f32) -> f32 {
    (p / (1.0 - p)).ln()
}

/// From maps of one size to masks of another, on the device that `F` is of.
pub struct Resize<F> {
    from: [usize; 2],
    to: [usize; 2],
    cut: F,
}

impl<F: Fn(&Cut, &mut [(&[f32], &mut [u64])]) -> Result<()>> Resize<F> {
    /// From maps `[side, side]` to masks `[height, width]`, by a back end's [`crate::ops::Ops::cut`]. A picture of that
    /// size exists.
    pub fn new(side: usize, width: usize, height: usize, cut: F) -> Result<Self> {
        Mask::check_size(width, height)?;
        Ok(Self { from: [side, side], to: [height, width], cut })
    }

    /// Logits of concepts' masks to pixels whose resized probability exceeds `threshold`.
    pub fn concepts<'m>(&self, maps: impl IntoIterator<Item = &'m [f32]>, threshold: f32) -> Result<Vec<Mask>> {
        self.cut(maps, Compared::Sigmoid, threshold)
    }

    /// Logits of objects' masks to pixels whose resized logit exceeds the logit of `threshold`.
    pub fn objects<'m>(&self, maps: impl IntoIterator<Item = &'m [f32]>, threshold: f32) -> Result<Vec<Mask>> {
        self.cut(maps, Compared::Values, logit(threshold))
    }

    fn cut<'m>(
        &self,
        maps: impl IntoIterator<Item = &'m [f32]>,
        compared: Compared,
        threshold: f32,
    ) -> Result<Vec<Mask>> {
        let [height, width] = self.to;
        let maps: Vec<&[f32]> = maps.into_iter().collect();
        let mut masks: Vec<Mask> = maps.iter().map(|_| Mask::new(width, height)).collect();
        let mut tasks: Vec<_> = maps.into_iter().zip(masks.iter_mut().map(Mask::words_mut)).collect();
        (self.cut)(&Cut { from: self.from, to: self.to, compared, threshold }, &mut tasks)?;
        Ok(masks)
    }
}

/// Indices of the scores above `threshold`, best first, equals in their order, at most `max`.
pub fn best(scores: &[f32], threshold: f32, max: Option<usize>) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..scores.len()).filter(|&i| scores[i] > threshold).collect();
    kept.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    kept.truncate(max.unwrap_or(usize::MAX));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{CpuOps, Isa};
    use crate::image::resize_bilinear_f32;
    use crate::ops::Ops;
    use crate::reference::ReferenceOps;

    #[test]
    fn best_scores_come_first_and_equals_keep_their_order() {
        let scores = [0.5, 0.9, 0.7, 0.9, 0.1, f32::NAN];
        assert_eq!(best(&scores, 0.5, None), [1, 3, 2]);
        assert_eq!(best(&scores, 0.5, Some(2)), [1, 3]);
        assert_eq!(best(&scores, 1.0, None), [0usize; 0]);
    }

    #[test]
    fn thresholds_agree_at_the_middle() {
        assert_eq!(logit(0.5), 0.0);
        assert_eq!(logit(0.0), f32::NEG_INFINITY);
        assert_eq!(logit(1.0), f32::INFINITY);
        // An even width: no pixel lies on the edge itself, where rounding decides.
        let logits = [3.0, -3.0, 3.0, -3.0];
        let resize = Resize::new(2, 6, 5, |cut, masks| ReferenceOps.cut(cut, masks)).unwrap();
        let (a, b) = (resize.concepts([&logits[..]], 0.5).unwrap(), resize.objects([&logits[..]], 0.5).unwrap());
        assert!(a[0].get(0, 0) && a[0].get(2, 4) && !a[0].get(3, 0) && a[0].area() == 15);
        assert_eq!(a, b);
    }

    #[test]
    fn masks_are_the_resized_map_above_the_threshold() {
        let host = CpuOps::new(Some(2), Isa::best()).unwrap();
        let side = 24;
        for (width, height) in [(24, 24), (1, 5), (100, 67), (13, 200)] {
            // Waves of several lengths, steep and shallow.
            let map = |k: f32| -> Vec<f32> {
                (0..side * side)
                    .map(|i| k * ((i % side) as f32 * 0.7).sin() * ((i / side) as f32 * 0.4).cos())
                    .collect()
            };
            let maps = [map(9.0), map(0.3), map(1e-7)];
            let resize = Resize::new(side, width, height, |cut, masks| host.cut(cut, masks)).unwrap();
            for threshold in [0.5, 0.1, 0.0, 1.0] {
                let views = || maps.iter().map(Vec::as_slice);
                let concepts = resize.concepts(views(), threshold).unwrap();
                let objects = resize.objects(views(), threshold).unwrap();
                for (map, (concept, object)) in maps.iter().zip(concepts.into_iter().zip(objects)) {
                    let sigmoids: Vec<f32> = map.iter().map(|&v| sigmoid(v)).collect();
                    for (mask, map, threshold) in [(concept, &sigmoids, threshold), (object, map, logit(threshold))] {
                        let resized = resize_bilinear_f32(map, side, side, height, width);
                        assert_eq!(mask, Mask::from_fn(width, height, |x, y| resized[y * width + x] > threshold));
                    }
                }
            }
        }
    }
}
