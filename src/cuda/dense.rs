//! Matrix products and the two convolutions, all through the GEMM kernels.

use super::arguments::{GemmArgs, HALF_ADD, HALF_W, HALF_X, HALF_Y, RowsArgs, dim};
use super::functions::Gemm;
use super::memory::{Act, rows};
use super::tensor_map::{ALIGNMENT, TensorMap, TmaGemmArgs};
use super::{COUNTERS, CudaOps, Precision, number};
use crate::error::Result;
use crate::ops::{Activation, Epilogue, Linear, View};

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

/// Rows of a tile of y of Hopper's kernels, the picture's rows and columns that they are of a convolution, and the columns of
/// one of its one or two sides (kernels/gemm_sm90a.cu).
const HOPPER_ROWS: usize = 192;
const HOPPER_PIXELS: [usize; 2] = [8, 24];
const HOPPER_SIDE: usize = 128;

/// Sides of the tiles that are done first, of a product with so many rows of tiles and `n` columns.
///
/// In clocks of an H200: a step of 64 of k takes 192 · 128 · 64 · 2 / 4096 of the tensor cores for each side, which a tile of
/// one side does not quite reach, since it reads more for each product; what begins and ends a tile is overlapped with
/// nothing.
fn hopper_sides(down: usize, n: usize, k: usize, processors: usize) -> usize {
    let clocks = |sides: usize| {
        let rounds = (down * n.div_ceil(HOPPER_SIDE * sides)).div_ceil(processors);
        rounds * (k.div_ceil(64) * (768 * sides).max(900) + 2000 + 3000 * sides)
    };
    if clocks(1) < clocks(2) { 1 } else { 2 }
}

/// Enqueues a product on Hopper's kernels; false where there are none, or where they would not be the faster ones.
///
/// They read operands of bf16 at aligned addresses, write 16 bytes at a time, turn heads of 64, and
/// have a GELU for results of bf16 alone. Their tiles are so large
/// that few of them leave multiprocessors without work; since they compute several times as fast as mma.sync does, a sixth of
/// the multiprocessors is enough, if half of the rows of a tile are there.
fn hopper(ops: &CudaOps, shape: Shape, args: &GemmArgs) -> Result<bool> {
    let Some(kernels) = ops.functions.hopper.as_ref().filter(|_| ops.precision == Precision::Bf16) else {
        return Ok(false);
    };
    let [m, n, k] = [args.m, args.n, args.k].map(|n| n as usize);
    let [height, width, channels] = [args.height, args.width, args.channels].map(|n| n as usize);
    let ld = if matches!(shape, Shape::Conv3x3) { channels } else { args.ldx as usize };
    let pitch = if matches!(shape, Shape::Deconv2x2) { channels } else { n };
    let fits = args.half & HALF_X != 0
        && args.x.is_multiple_of(ALIGNMENT as u64)
        && (ld * 2).is_multiple_of(ALIGNMENT)
        && pitch.is_multiple_of(8)
        && args.ld_add.is_multiple_of(8)
        && [args.y, args.add, args.bias].iter().all(|&p| p.is_multiple_of(ALIGNMENT as u64))
        && (args.turned == 0 || args.head_dim == HOPPER_HEAD)
        && (args.act != number(Activation::Gelu) || args.half & HALF_Y != 0)
        && k > 0
        && (!matches!(shape, Shape::Conv3x3) || channels.is_multiple_of(64));
    let down = match shape {
        Shape::Conv3x3 => height.div_ceil(HOPPER_PIXELS[0]) * width.div_ceil(HOPPER_PIXELS[1]),
        Shape::Product | Shape::Deconv2x2 => m.div_ceil(HOPPER_ROWS),
    };
    let sides = hopper_sides(down, n, k, ops.processors);
    let (tiles, processors) = (down * n.div_ceil(HOPPER_SIDE * sides), ops.processors);
    if !fits || tiles == 0 || 6 * tiles < processors || 2 * m < HOPPER_ROWS {
        return Ok(false);
    }
    let rows = [HOPPER_ROWS as u32, 1];
    let (kernel, x) = match shape {
        Shape::Product => (&kernels.gemm, TensorMap::new(args.x, [k, m, 1], [ld, m * ld], rows)?),
        Shape::Deconv2x2 => (&kernels.deconv2x2, TensorMap::new(args.x, [k, m, 1], [ld, m * ld], rows)?),
        Shape::Conv3x3 => {
            let boxes = [HOPPER_PIXELS[1] as u32, HOPPER_PIXELS[0] as u32];
            let lengths = [channels, width, height];
            (&kernels.conv3x3, TensorMap::new(args.x, lengths, [channels, width * channels], boxes)?)
        }
    };
    let ldw = args.ldw as usize;
    let w = TensorMap::new(args.w, [k, n, 1], [ldw, n * ldw], [(HOPPER_SIDE * sides) as u32, 1])?;
    let args = TmaGemmArgs { x, w, gemm: *args, ..TmaGemmArgs::default() };
    ops.device.launch(&kernel[sides - 1], [tiles.min(processors), 1, 1], &args)?;
    Ok(true)
}

/// Whether Hopper's kernels would take a product if its activations were bf16 in aligned rows: packing them anew costs less
/// than multiplying them as they are.
fn is_worth_packing(ops: &CudaOps, args: &GemmArgs) -> bool {
    let loose = args.half & HALF_X == 0
        || !args.x.is_multiple_of(ALIGNMENT as u64)
        || !(args.ldx as usize * 2).is_multiple_of(ALIGNMENT);
    let tiles = (args.m as usize).div_ceil(HOPPER_ROWS) * (args.n as usize).div_ceil(HOPPER_SIDE);
    loose && ops.functions.hopper.is_some() && ops.precision == Precision::Bf16 && 6 * tiles >= ops.processors
}

/// Packs the activations of a product behind its output, in rows as long as the matrix's.
fn pack(ops: &CudaOps, args: &mut GemmArgs, to: u64) -> Result<()> {
    let rows = RowsArgs {
        a: args.x,
        y: to,
        rows: args.m,
        width: args.k,
        lda: args.ldx,
        ldb: args.ldw,
        half: args.half & HALF_X,
        ..RowsArgs::default()
    };
    let f = &ops.functions.pad;
    ops.device.launch(f, ops.blocks(args.m as usize * args.ldw as usize / 2, f.threads), &rows)?;
    (args.x, args.ldx, args.half) = (to, args.ldw, args.half | HALF_X);
    Ok(())
}

/// The tile of y of the kernel for few rows, its step of k, and the steps that are on their way at once
/// (kernels/gemm_few.cu).
const FEW: [usize; 2] = [32, 64];
const FEW_STEP: usize = 64;
const FEW_STAGES: usize = 4;

/// Most blocks that share a tile: what the last one adds up is then a small part of what all read.
const MOST_SPLITS: usize = 8;

/// Enqueues a product of few rows, `behind` being the address of room for so many bytes as [`few_splits`] says.
fn launch_few(ops: &CudaOps, args: &GemmArgs, splits: usize, behind: u64) -> Result<()> {
    let grid = [(args.n as usize).div_ceil(FEW[1]), (args.m as usize).div_ceil(FEW[0]), splits];
    let args = GemmArgs { splits: dim(splits), partial: behind, counters: ops.counters.slice(COUNTERS), ..*args };
    ops.device.launch(&ops.functions.gemm_few, grid, &args)
}

/// Among how many blocks the kernel for few rows shares each tile, and the bytes that they leave their sums in; none where
/// it does not fit, or where there are more tiles than are done at once.
///
/// It reads rows of aligned chunks of 16 bytes and writes pairs. What is one step a block is on its way as soon as it begins.
fn few_splits(ops: &CudaOps, args: &GemmArgs) -> Option<(usize, usize)> {
    let [m, n, k] = [args.m, args.n, args.k].map(|n| n as usize);
    let [x_chunk, add_pair] =
        [(HALF_X, [4, 8]), (HALF_ADD, [8, 4])].map(|(flag, sizes)| sizes[usize::from(args.half & flag != 0)]);
    let fits = args.x.is_multiple_of(ALIGNMENT as u64)
        && (args.ldx as usize).is_multiple_of(x_chunk)
        && k.is_multiple_of(8)
        && n.is_multiple_of(2)
        && (args.add == 0 || (args.ld_add.is_multiple_of(2) && args.add.is_multiple_of(add_pair as u64)))
        && args.head_dim.is_multiple_of(2);
    let tiles = m.div_ceil(FEW[0]) * n.div_ceil(FEW[1]);
    if ops.precision != Precision::Bf16 || !fits || tiles == 0 || tiles > 2 * ops.processors {
        return None;
    }
    let steps = k.div_ceil(FEW_STEP);
    let wanted = (2 * ops.processors / tiles).min(steps.div_ceil(FEW_STAGES)).clamp(1, MOST_SPLITS);
    // None without steps.
    let splits = if tiles > COUNTERS { 1 } else { steps.div_ceil(steps.div_ceil(wanted).max(1)).max(1) };
    Some((splits, if splits > 1 { splits * tiles * FEW[0] * FEW[1] * size_of::<f32>() } else { 0 }))
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
    let few = few_splits(ops, &args);
    let packed = few.is_none() && is_worth_packing(ops, &args);
    let extra =
        if packed { m * args.ldw as usize * size_of::<half::bf16>() } else { few.map_or(0, |(_, bytes)| bytes) };
    let (to, behind) = y.output_with(ops, m * l.n, extra)?;
    args.y = to.address;
    args.half |= to.flag(HALF_Y);
    if packed {
        pack(ops, &mut args, behind)?;
    }
    match ops.precision {
        Precision::F32 => launch(ops, &ops.functions.gemm_f32, &args),
        Precision::Bf16 if hopper(ops, Shape::Product, &args)? => Ok(()),
        Precision::Bf16 if let Some((splits, _)) = few => launch_few(ops, &args, splits, behind),
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
