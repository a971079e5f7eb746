//! Pixels, patches, upsampling, RoI align, and the decoder's boxes.

use super::CudaOps;
use super::arguments::{BoxArgs, HALF_ADD, HALF_X, HALF_Y, PictureArgs, dim};
use super::functions::Function;
use super::memory::Act;
use crate::error::Result;

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

pub(super) fn ingest(ops: &CudaOps, rgb: &[u8], y: &mut Act) -> Result<()> {
    let address = y.output(&ops.device, rgb.len() + rgb.len().div_ceil(ELEMENT))?;
    y.write(rgb.len(), rgb)?;
    let args = PictureArgs {
        x: address + (rgb.len() * ELEMENT) as u64,
        y: address,
        count: dim(rgb.len()),
        ..PictureArgs::default()
    };
    each(ops, &ops.functions.ingest, rgb.len(), &args)
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
