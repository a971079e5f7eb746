//! From logits to masks at the picture's size, by upstream's post-processing (`image_processing_sam3.py`).
//!
//! For concepts σ comes first and the bilinear resize after it (`post_process_instance_segmentation`); for objects the
//! logits are resized and compared with the threshold's logit (`post_process_masks`). Masks grow row by row into one
//! bit per pixel, so no map of the picture's size in f32 ever exists.

use crate::error::Result;
use crate::image::BilinearRows;
use crate::instance::Mask;

/// `1 / (1 + e⁻ˣ)`
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// `σ⁻¹(p)`, infinite at 0 and 1.
pub fn logit(p: f32) -> f32 {
    (p / (1.0 - p)).ln()
}

/// Logits `[side, side]` of a concept's mask to pixels whose resized probability exceeds `threshold`.
pub fn concept_mask(logits: &[f32], side: usize, width: usize, height: usize, threshold: f32) -> Result<Mask> {
    let probabilities: Vec<f32> = logits.iter().map(|&v| sigmoid(v)).collect();
    resized_above(&probabilities, side, width, height, threshold)
}

/// Logits `[side, side]` of an object's mask to pixels whose resized logit exceeds the logit of `threshold`.
pub fn object_mask(logits: &[f32], side: usize, width: usize, height: usize, threshold: f32) -> Result<Mask> {
    resized_above(logits, side, width, height, logit(threshold))
}

fn resized_above(map: &[f32], side: usize, width: usize, height: usize, threshold: f32) -> Result<Mask> {
    Mask::check_size(width, height)?;
    let mut mask = Mask::new(width, height);
    let mut rows = BilinearRows::new(map, side, side, height, width);
    let mut y = 0;
    while let Some(row) = rows.next_row() {
        mask.set_row(y, |x| row[x] > threshold);
        y += 1;
    }
    Ok(mask)
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
        let (a, b) = (concept_mask(&logits, 2, 6, 5, 0.5).unwrap(), object_mask(&logits, 2, 6, 5, 0.5).unwrap());
        assert!(a.get(0, 0) && a.get(2, 4) && !a.get(3, 0) && a.area() == 15);
        assert_eq!(a.iou(&b), 1.0);
    }
}
