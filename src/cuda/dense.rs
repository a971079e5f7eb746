//! Matrix products and the two convolutions, all through the GEMM kernels.

use super::arguments::{GemmArgs, HALF_ADD, HALF_W, HALF_X, HALF_Y, dim};
use super::functions::Gemm;
use super::memory::{Act, rows};
use super::tensor_map::{ALIGNMENT, TensorMap, TmaGemmArgs};
use super::{CudaOps, Precision, number};
use crate::error::Result;
use crate::ops::{Epilogue, Linear, View};

/// The arguments that a layer brings: its matrix and its bias.
fn layer(l: &Linear<CudaOps>) -> GemmArgs {
    assert_eq!((l.w.n, l.w.k), (l.n, l.k), "shape [n, k] of a layer's matrix");
    GemmArgs {
        w: l.w.address(),
        bias: l.b.as_ref().map_or(0, |b| b.slice(l.n)),
        n: dim(l.n),
        k: dim(l.k),
        ldw: dim(l.w.ld),
        ..GemmArgs::default()
    }
}

/// Adds the epilogue for an output `[count, width]`.
fn finish(args: &mut GemmArgs, ep: Epilogue<'_, Act>, count: usize, width: usize) {
    args.act = number(ep.act);
    if let Some(turn) = ep.turn {
        turn.check(width);
        args.angles = turn.angles.slice(count * turn.head_dim);
        (args.turned, args.head_dim) = (dim(turn.columns), dim(turn.head_dim));
    }
    if let Some(add) = ep.add {
        let found = rows(add, count, width);
        args.add = found.address;
        args.ld_add = dim(add.stride);
        args.half |= found.flag(HALF_ADD);
    }
}

/// Makes room for the output of `len` elements.
fn output(ops: &CudaOps, args: &mut GemmArgs, len: usize, y: &mut Act) -> Result<()> {
    let to = y.output_as(ops, len)?;
    args.y = to.address;
    args.half |= to.flag(HALF_Y);
    Ok(())
}

/// Enqueues a product of `args.m × args.n`.
fn launch(ops: &CudaOps, gemm: &Gemm, args: &GemmArgs) -> Result<()> {
    let grid = [(args.n as usize).div_ceil(gemm.tile), (args.m as usize).div_ceil(gemm.tile), 1];
    ops.device.launch(&gemm.function, grid, args)
}

/// What differs between the kinds of product on Hopper.
enum Shape {
    Product,
    Conv3x3,
    Deconv2x2,
}

/// Width of the heads that Hopper's kernels turn.
const HOPPER_HEAD: u32 = 64;

/// The tile of y of Hopper's kernels, and the picture's rows and columns that a convolution's is (kernels/gemm_sm90a.cu).
const HOPPER: [usize; 2] = [192, 256];
const HOPPER_PIXELS: [usize; 2] = [8, 24];

/// Enqueues a product on Hopper's kernels; false where there are none, or where they would not be the faster ones.
///
/// They read operands of bf16 at aligned addresses, write elements in pairs, and turn heads of 64. Their tiles are so large
/// that few of them leave multiprocessors without work; since they compute at least twice as fast as mma.sync does, half of
/// the multiprocessors are enough.
fn hopper(ops: &CudaOps, shape: Shape, args: &GemmArgs) -> Result<bool> {
    let Some(kernels) = ops.functions.hopper.as_ref().filter(|_| ops.precision == Precision::Bf16) else {
        return Ok(false);
    };
    let [m, n, k] = [args.m, args.n, args.k].map(|n| n as usize);
    let [height, width, channels] = [args.height, args.width, args.channels].map(|n| n as usize);
    let ld = if matches!(shape, Shape::Conv3x3) { channels } else { args.ldx as usize };
    let pitch = if matches!(shape, Shape::Deconv2x2) { channels } else { n };
    let add_pair = if args.half & HALF_ADD != 0 { 4 } else { 8 };
    let fits = args.half & HALF_X != 0
        && args.x.is_multiple_of(ALIGNMENT as u64)
        && (ld * 2).is_multiple_of(ALIGNMENT)
        && pitch.is_multiple_of(2)
        && (args.add == 0 || (args.ld_add.is_multiple_of(2) && args.add.is_multiple_of(add_pair)))
        && (args.turned == 0 || args.head_dim == HOPPER_HEAD)
        && k > 0
        && (!matches!(shape, Shape::Conv3x3) || channels.is_multiple_of(64));
    let down = match shape {
        Shape::Conv3x3 => height.div_ceil(HOPPER_PIXELS[0]) * width.div_ceil(HOPPER_PIXELS[1]),
        Shape::Product | Shape::Deconv2x2 => m.div_ceil(HOPPER[0]),
    };
    let (tiles, processors) = (down * n.div_ceil(HOPPER[1]), ops.processors);
    if !fits || tiles == 0 || 2 * tiles < processors {
        return Ok(false);
    }
    let (kernel, x) = match shape {
        Shape::Product => (&kernels.gemm, TensorMap::new(args.x, [k, m, 1], [ld, m * ld], [HOPPER[0] as u32, 1])?),
        Shape::Deconv2x2 => {
            (&kernels.deconv2x2, TensorMap::new(args.x, [k, m, 1], [ld, m * ld], [HOPPER[0] as u32, 1])?)
        }
        Shape::Conv3x3 => {
            let boxes = [HOPPER_PIXELS[1] as u32, HOPPER_PIXELS[0] as u32];
            let lengths = [channels, width, height];
            (&kernels.conv3x3, TensorMap::new(args.x, lengths, [channels, width * channels], boxes)?)
        }
    };
    let ldw = args.ldw as usize;
    let w = TensorMap::new(args.w, [k, n, 1], [ldw, n * ldw], [HOPPER[1] as u32, 1])?;
    let args = TmaGemmArgs { x, w, gemm: *args, ..TmaGemmArgs::default() };
    ops.device.launch(kernel, [tiles.min(processors), 1, 1], &args)?;
    Ok(true)
}

/// The larger tile reads less, if there are enough of them to occupy every multiprocessor.
fn choose<'a>(ops: &CudaOps, [large, small]: &'a [Gemm; 2], args: &GemmArgs) -> &'a Gemm {
    let tiles = (args.n as usize).div_ceil(large.tile) * (args.m as usize).div_ceil(large.tile);
    if tiles >= ops.processors { large } else { small }
}

pub(super) fn linear(
    ops: &CudaOps,
    x: View<'_, Act>,
    l: &Linear<CudaOps>,
    m: usize,
    ep: Epilogue<'_, Act>,
    y: &mut Act,
) -> Result<()> {
    let from = rows(x, m, l.k);
    let half = from.flag(HALF_X);
    let mut args = GemmArgs { x: from.address, m: dim(m), ldx: dim(x.stride), half, ..layer(l) };
    finish(&mut args, ep, m, l.n);
    output(ops, &mut args, m * l.n, y)?;
    match ops.precision {
        Precision::F32 => launch(ops, &ops.functions.gemm_f32, &args),
        Precision::Bf16 if hopper(ops, Shape::Product, &args)? => Ok(()),
        Precision::Bf16 => launch(ops, choose(ops, &ops.functions.gemm_bf16, &args), &args),
    }
}

pub(super) fn dot(
    ops: &CudaOps,
    a: View<'_, Act>,
    m: usize,
    b: View<'_, Act>,
    n: usize,
    k: usize,
    y: &mut Act,
) -> Result<()> {
    let (left, right) = (rows(a, m, k), rows(b, n, k));
    let mut args = GemmArgs {
        x: left.address,
        w: right.address,
        m: dim(m),
        n: dim(n),
        k: dim(k),
        ldx: dim(a.stride),
        ldw: dim(b.stride),
        half: left.flag(HALF_X) | right.flag(HALF_W),
        ..GemmArgs::default()
    };
    output(ops, &mut args, m * n, y)?;
    match ops.precision {
        Precision::F32 => launch(ops, &ops.functions.gemm_f32, &args),
        Precision::Bf16 => launch(ops, &ops.functions.dot_bf16, &args),
    }
}

pub(super) fn conv3x3(ops: &CudaOps, x: &Act, l: &Linear<CudaOps>, [h, w]: [usize; 2], y: &mut Act) -> Result<()> {
    assert_eq!(l.k % 9, 0, "inputs of a 3×3 convolution, {}, are a multiple of 9", l.k);
    let channels = l.k / 9;
    let from = x.whole(h * w * channels);
    let mut args = GemmArgs {
        x: from.address,
        m: dim(h * w),
        height: dim(h),
        width: dim(w),
        channels: dim(channels),
        half: from.flag(HALF_X),
        ..layer(l)
    };
    output(ops, &mut args, h * w * l.n, y)?;
    match ops.precision {
        Precision::F32 => launch(ops, &ops.functions.conv3x3_f32, &args),
        Precision::Bf16 if hopper(ops, Shape::Conv3x3, &args)? => Ok(()),
        Precision::Bf16 => launch(ops, choose(ops, &ops.functions.conv3x3_bf16, &args), &args),
    }
}

pub(super) fn deconv2x2(
    ops: &CudaOps,
    x: &Act,
    l: &Linear<CudaOps>,
    [h, w]: [usize; 2],
    ep: Epilogue<'_, Act>,
    y: &mut Act,
) -> Result<()> {
    assert_eq!(l.n % 4, 0, "outputs of a 2×2 transposed convolution, {}, are a multiple of 4", l.n);
    assert!(ep.turn.is_none(), "a transposed convolution has no rotary turn");
    let from = x.whole(h * w * l.k);
    let mut args = GemmArgs {
        x: from.address,
        m: dim(h * w),
        ldx: dim(l.k),
        height: dim(h),
        width: dim(w),
        channels: dim(l.n / 4),
        half: from.flag(HALF_X),
        ..layer(l)
    };
    finish(&mut args, ep, 4 * h * w, l.n / 4);
    output(ops, &mut args, h * w * l.n, y)?;
    match ops.precision {
        Precision::F32 => launch(ops, &ops.functions.deconv2x2_f32, &args),
        Precision::Bf16 if hopper(ops, Shape::Deconv2x2, &args)? => Ok(()),
        Precision::Bf16 => launch(ops, &ops.functions.deconv2x2_bf16, &args),
    }
}
