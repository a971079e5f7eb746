//! Raw outputs as safetensors, and mask logits read back from them.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sam3::image::write_file;
use sam3::{Error, LowResMask, Result, Segmentation};

use crate::segment::io_error;

/// Writes every prompt's raw outputs under upstream's names, with `0.`, `1.`, … before them if there are several
/// prompts.
pub fn write(path: &Path, answer: &Segmentation) -> Result<()> {
    let many = answer.prompts.len() > 1;
    let mut named: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (i, prompt) in answer.prompts.iter().enumerate() {
        for tensor in &prompt.raw {
            let name = if many { format!("{i}.{}", tensor.name) } else { tensor.name.to_string() };
            let bytes = tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            named.insert(name, (tensor.shape.clone(), bytes));
        }
    }
    let views: Vec<(&str, TensorView<'_>)> = named
        .iter()
        .map(|(name, (shape, bytes))| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("shapes are those of the values");
            (name.as_str(), view)
        })
        .collect();
    let bytes = safetensors::serialize(views, None).expect("names and shapes are valid");
    write_file(path, &bytes)
}

/// The mask of one object in an earlier [`write`]: of several, the one with the best predicted IoU.
pub fn read_mask(path: &Path, side: usize) -> Result<LowResMask> {
    let bytes = std::fs::read(path).map_err(|e| io_error(path, "cannot read the mask logits", e))?;
    let wrong = |found: String| {
        Error::invalid(format!("expected pred_masks of one object, [1, 1, masks, {side}, {side}] f32, found {found}"))
            .at(path.display())
    };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| wrong(e.to_string()))?;
    let read = |name: &str| -> Result<(Vec<usize>, Vec<f32>)> {
        let t = file.tensor(name).map_err(|_| wrong(format!("no tensor {name}")))?;
        if t.dtype() != Dtype::F32 {
            return Err(wrong(format!("{name} of {:?}", t.dtype())));
        }
        let values = t.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok((t.shape().to_vec(), values))
    };
    let (shape, masks) = read("pred_masks")?;
    let (_, ious) = read("iou_scores")?;
    let [1, 1, count, h, w] = shape[..] else { return Err(wrong(format!("{shape:?}"))) };
    if count == 0 || count != ious.len() || (h, w) != (side, side) {
        return Err(wrong(format!("{shape:?} with {} iou_scores", ious.len())));
    }
    let best = (0..count).max_by(|&a, &b| ious[a].total_cmp(&ious[b])).expect("count is not zero");
    LowResMask::new(masks[best * side * side..][..side * side].to_vec(), side).map_err(|e| e.at(path.display()))
}
