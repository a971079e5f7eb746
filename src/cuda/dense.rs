//! Matrix products and the two convolutions, all through the GEMM kernels.

use super::arguments::{GemmArgs, dim};
use super::functions::Gemm;
use super::memory::{Act, rows};
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
    if let Some(add) = ep.add {
        args.add = rows(add, count, width);
        args.ld_add = dim(add.stride);
    }
}

/// Enqueues a product of `args.m × args.n`.
fn launch(ops: &CudaOps, gemm: &Gemm, args: &GemmArgs) -> Result<()> {
    let grid = [(args.n as usize).div_ceil(gemm.tile), (args.m as usize).div_ceil(gemm.tile), 1];
    ops.device.launch(&gemm.function, grid, args)
}

/// The larger tile reads less, if there are enough of them to occupy every multiprocessor.
fn choose<'a>(ops: &CudaOps, [large, small]: &'a [Gemm; 2], args: &GemmArgs) -> &'a Gemm {
    let tiles = (args.n as usize).div_ceil(large.tile) * (args.m as usize).div_ceil(large.tile);
    if tiles >= ops.device.processors() as usize { large } else { small }
}

pub(super) fn linear(
    ops: &CudaOps,
    x: View<'_, Act>,
    l: &Linear<CudaOps>,
    m: usize,
    ep: Epilogue<'_, Act>,
    y: &mut Act,
) -> Result<()> {
    let mut args = GemmArgs { x: rows(x, m, l.k), m: dim(m), ldx: dim(x.stride), ..layer(l) };
    finish(&mut args, ep, m, l.n);
    args.y = y.output(&ops.device, m * l.n)?;
    match ops.precision {
        Precision::F32 => launch(ops, &ops.functions.gemm_f32, &args),
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
    let args = GemmArgs {
        x: rows(a, m, k),
        w: rows(b, n, k),
        m: dim(m),
        n: dim(n),
        k: dim(k),
        ldx: dim(a.stride),
        ldw: dim(b.stride),
        y: y.output(&ops.device, m * n)?,
        ..GemmArgs::default()
    };
    match ops.precision {
        Precision::F32 => launch(ops, &ops.functions.gemm_f32, &args),
        Precision::Bf16 => launch(ops, &ops.functions.dot_bf16, &args),
    }
}

pub(super) fn conv3x3(ops: &CudaOps, x: &Act, l: &Linear<CudaOps>, [h, w]: [usize; 2], y: &mut Act) -> Result<()> {
    assert_eq!(l.k % 9, 0, "inputs of a 3×3 convolution, {}, are a multiple of 9", l.k);
    let channels = l.k / 9;
    let args = GemmArgs {
        x: x.slice(h * w * channels),
        m: dim(h * w),
        height: dim(h),
        width: dim(w),
        channels: dim(channels),
        y: y.output(&ops.device, h * w * l.n)?,
        ..layer(l)
    };
    match ops.precision {
        Precision::F32 => launch(ops, &ops.functions.conv3x3_f32, &args),
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
    let mut args = GemmArgs {
        x: x.slice(h * w * l.k),
        m: dim(h * w),
        ldx: dim(l.k),
        height: dim(h),
        width: dim(w),
        channels: dim(l.n / 4),
        ..layer(l)
    };
    finish(&mut args, ep, 4 * h * w, l.n / 4);
    args.y = y.output(&ops.device, h * w * l.n)?;
    match ops.precision {
        Precision::F32 => launch(ops, &ops.functions.deconv2x2_f32, &args),
        Precision::Bf16 => launch(ops, &ops.functions.deconv2x2_bf16, &args),
    }
}
