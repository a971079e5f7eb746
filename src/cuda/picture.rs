//! Pixels, patches, upsampling, RoI align, and the decoder's boxes.

use super::CudaOps;
use super::arguments::{BoxArgs, HALF_ADD, HALF_X, HALF_Y, PictureArgs, dim};
use super::functions::Function;
use super::memory::Act;
use crate::error::{Error, Result};
use crate::image::{Axis, ImageView};

/// Bytes of an element.
const ELEMENT: usize = size_of::<f32>();

/// Enqueues a kernel of one thread per element, which may do more.
fn each(ops: &CudaOps, f: &Function<PictureArgs>, elements: usize, args: &PictureArgs) -> Result<()> {
    ops.device.launch(f, ops.blocks(elements, f.threads), args)
}

/// Enqueues a kernel of exactly one thread per element.
fn one_each(ops: &CudaOps, f: &Function<BoxArgs>, elements: usize, args: &BoxArgs) -> Result<()> {
    ops.device.launch(f, [elements.div_ceil(f.threads as usize), 1, 1], args)
}

/// The filters of both axes as the kernel takes them: their precisions, across and down; of each output sample its first
/// input sample, their number, and where its weights begin, across and down; all weights, two a word.
fn filters(width: usize, height: usize, side: usize) -> Result<Vec<u32>> {
    let axes = [Axis::new(width, side), Axis::new(height, side)];
    let weights: Vec<i16> = axes.iter().flat_map(|axis| axis.weights.iter().copied()).collect();
    // Every sample has weights, so that with their number all others are known to fit.
    if u32::try_from(weights.len()).is_err() {
        return Err(Error::invalid(format!("picture: expected fewer than 2³⁰ pixels a side, found {width}x{height}")));
    }
    let mut words: Vec<u32> = axes.iter().map(|axis| axis.precision).collect();
    for (axis, before) in axes.iter().zip([0, axes[0].weights.len()]) {
        words.extend(axis.spans.iter().flat_map(|span| [span.first, span.len, before + span.weights].map(dim)));
    }
    words.extend(weights.chunks(2).map(|pair| {
        let [low, high] = [pair[0], pair.get(1).copied().unwrap_or(0)].map(|w| u32::from(w.cast_unsigned()));
        low | high << 16
    }));
    Ok(words)
}

/// The picture and its filters lie behind the output. That is the model's buffer for maps, which at the published size
/// comes to 42 MB in any case, so that pictures of up to 10 megapixels take no memory of their own.
pub(super) fn ingest(ops: &CudaOps, picture: &ImageView<'_>, side: usize, y: &mut Act) -> Result<()> {
    let (width, height) = (picture.width(), picture.height());
    let (rgb, filters, elements) = (picture.packed_rgb()?, filters(width, height, side)?, side * side * 3);
    let behind = elements + filters.len();
    let address = y.output(&ops.device, behind + rgb.len().div_ceil(ELEMENT))?;
    y.write(elements, &filters)?;
    y.write(behind, &rgb)?;
    let args = PictureArgs {
        x: address + (behind * ELEMENT) as u64,
        skip: address + (elements * ELEMENT) as u64,
        y: address,
        height: dim(height),
        width: dim(width),
        size: dim(side),
        ..PictureArgs::default()
    };
    each(ops, &ops.functions.ingest, side * side, &args)
}

pub(super) fn patches(ops: &CudaOps, x: &Act, [h, w]: [usize; 2], c: usize, p: usize, y: &mut Act) -> Result<()> {
    assert!(p > 0 && h.is_multiple_of(p) && w.is_multiple_of(p), "a picture {h}×{w} in patches of {p}");
    let from = x.whole(h * w * c);
    let args = PictureArgs {
        x: from.address,
        half: from.flag(HALF_X),
        y: y.output(&ops.device, h * w * c)?,
        height: dim(h),
        width: dim(w),
        channels: dim(c),
        size: dim(p),
        ..PictureArgs::default()
    };
    each(ops, &ops.functions.patches, h * w * c, &args)
}

pub(super) fn upsample_add(
    ops: &CudaOps,
    x: &Act,
    [h, w]: [usize; 2],
    skip: &Act,
    [oh, ow]: [usize; 2],
    c: usize,
    y: &mut Act,
) -> Result<()> {
    let (from, skip) = (x.whole(h * w * c), skip.whole(oh * ow * c));
    let to = y.output_as(ops, oh * ow * c)?;
    let args = PictureArgs {
        x: from.address,
        skip: skip.address,
        y: to.address,
        half: from.flag(HALF_X) | skip.flag(HALF_ADD) | to.flag(HALF_Y),
        height: dim(h),
        width: dim(w),
        channels: dim(c),
        out_height: dim(oh),
        out_width: dim(ow),
        ..PictureArgs::default()
    };
    each(ops, &ops.functions.upsample_add, oh * ow * c, &args)
}

pub(super) fn roi_align(
    ops: &CudaOps,
    x: &Act,
    [h, w]: [usize; 2],
    c: usize,
    boxes: &[[f32; 4]],
    size: usize,
    y: &mut Act,
) -> Result<()> {
    assert!(size > 0, "a pooled box has a size");
    for (n, xyxy) in boxes.iter().enumerate() {
        assert!(xyxy.iter().all(|v| v.is_finite()), "box {n} is not finite");
    }
    let elements = boxes.len() * c * size * size;
    let address = y.output(&ops.device, elements + boxes.len() * 4)?;
    y.write(elements, boxes)?;
    let from = x.whole(h * w * c);
    let args = PictureArgs {
        x: from.address,
        half: from.flag(HALF_X),
        skip: address + (elements * ELEMENT) as u64,
        y: address,
        height: dim(h),
        width: dim(w),
        channels: dim(c),
        size: dim(size),
        count: dim(boxes.len()),
        ..PictureArgs::default()
    };
    each(ops, &ops.functions.roi_align, elements, &args)
}

pub(super) fn box_sine(ops: &CudaOps, boxes: &Act, n: usize, features: usize, y: &mut Act) -> Result<()> {
    let args = BoxArgs {
        boxes: boxes.slice(n * 4),
        y: y.output(&ops.device, n * 4 * features)?,
        count: dim(n),
        features: dim(features),
        ..BoxArgs::default()
    };
    one_each(ops, &ops.functions.box_sine, n * 4 * features, &args)
}

pub(super) fn box_deltas(
    ops: &CudaOps,
    boxes: &Act,
    n: usize,
    [height, width]: [usize; 2],
    dx: &mut Act,
    dy: &mut Act,
) -> Result<()> {
    let args = BoxArgs {
        boxes: boxes.slice(n * 4),
        y: dx.output(&ops.device, n * width * 2)?,
        y2: dy.output(&ops.device, n * height * 2)?,
        count: dim(n),
        height: dim(height),
        width: dim(width),
        ..BoxArgs::default()
    };
    one_each(ops, &ops.functions.box_deltas, n * (width + height) * 2, &args)
}

pub(super) fn box_refine(ops: &CudaOps, delta: &Act, boxes: &Act, n: usize, y: &mut Act) -> Result<()> {
    let args = BoxArgs {
        boxes: boxes.slice(n * 4),
        delta: delta.slice(n * 4),
        y: y.output(&ops.device, n * 4)?,
        count: dim(n),
        ..BoxArgs::default()
    };
    one_each(ops, &ops.functions.box_refine, n * 4, &args)
}
