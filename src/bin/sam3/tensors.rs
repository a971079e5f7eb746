//! Raw outputs as safetensors, and mask logits read back from them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sam3::image::write_file;
use sam3::{Error, ErrorKind, LowResMask, Result, Segmentation};

use crate::segment::io_error;

/// Longest file that mask logits are read from. Those of one object of the published model are 1 MB; the limit keeps a
/// device or a checkpoint named by mistake from filling the memory.
const MAX_FILE_BYTES: u64 = 64 << 20;

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
pub fn read_mask(path: &Path) -> Result<LowResMask> {
    let unread = |e| io_error(path, "cannot read the mask logits", e);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unread)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = format!("expected mask logits of at most {MAX_FILE_BYTES} bytes, found more");
        return Err(Error::new(ErrorKind::Io, message).at(path.display()));
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|e| {
        Error::new(ErrorKind::Io, "expected a file of --tensors, found damage").at(path.display()).with_source(e)
    })?;
    let wrong = |found: String| {
        let expected = "expected pred_masks [1, 1, masks, side, side] and iou_scores [1, 1, masks] of one object";
        Error::invalid(format!("{expected}, found {found}")).at(path.display())
    };
    let read = |name: &str| -> Result<(Vec<usize>, Vec<f32>)> {
        let t = file.tensor(name).map_err(|_| wrong(format!("no tensor {name}")))?;
        if t.dtype() != Dtype::F32 {
            return Err(wrong(format!("{name} of {:?}", t.dtype())));
        }
        let values = t.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok((t.shape().to_vec(), values))
    };
    let (shape, masks) = read("pred_masks")?;
    let (_, ious) = read("iou_scores")?;
    let [1, 1, count, side, width] = shape[..] else { return Err(wrong(format!("{shape:?}"))) };
    if count == 0 || count != ious.len() || side == 0 || width != side {
        return Err(wrong(format!("{shape:?} with {} iou_scores", ious.len())));
    }
    let best = (0..count).max_by(|&a, &b| ious[a].total_cmp(&ious[b])).expect("count is not zero");
    LowResMask::new(&masks[best * side * side..][..side * side], side).map_err(|e| e.at(path.display()))
}
