//! Layer and group norm.

use super::arguments::{HALF_X, HALF_Y, NormArgs, dim};
use super::memory::{Act, rows};
use super::{CudaOps, number};
use crate::error::Result;
use crate::ops::{Activation, Norm, View};

/// Rows of one block (kernels/norm.cu).
const ROWS: usize = 8;

/// Elements that one warp of the group norm sums: long enough to hide the joining, short enough to have many.
const CHUNK: usize = 4096;

/// Most chunks of a group, which every block of the second kernel joins anew.
const MOST_CHUNKS: usize = 1024;

fn arguments(norm: &Norm<CudaOps>, count: usize, act: Activation) -> NormArgs {
    NormArgs {
        gamma: norm.gamma.slice(norm.width),
        beta: norm.beta.slice(norm.width),
        rows: dim(count),
        width: dim(norm.width),
        act: number(act),
        eps: norm.eps,
        ..NormArgs::default()
    }
}

pub(super) fn layer_norm(
    ops: &CudaOps,
    x: View<'_, Act>,
    norm: &Norm<CudaOps>,
    count: usize,
    act: Activation,
    y: &mut Act,
) -> Result<()> {
    let from = rows(x, count, norm.width);
    let to = y.output_as(ops, count * norm.width)?;
    let args = NormArgs {
        x: from.address,
        ldx: dim(x.stride),
        y: to.address,
        half: from.flag(HALF_X) | to.flag(HALF_Y),
        ..arguments(norm, count, act)
    };
    ops.device.launch(&ops.functions.layer_norm, [count.div_ceil(ROWS), 1, 1], &args)
}

pub(super) fn group_norm(
    ops: &CudaOps,
    x: &Act,
    norm: &Norm<CudaOps>,
    groups: usize,
    count: usize,
    act: Activation,
    y: &mut Act,
) -> Result<()> {
    assert!(groups > 0 && norm.width.is_multiple_of(groups), "{groups} groups of {} channels", norm.width);
    let chunks = (count * norm.width / groups).div_ceil(CHUNK).clamp(1, MOST_CHUNKS);
    let elements = count * norm.width;
    let from = x.whole(elements);
    let (to, partial) = y.output_with(ops, elements, groups * chunks * 3 * size_of::<f32>())?;
    let args = NormArgs {
        x: from.address,
        y: to.address,
        partial,
        half: from.flag(HALF_X) | to.flag(HALF_Y),
        groups: dim(groups),
        chunks: dim(chunks),
        ..arguments(norm, count, act)
    };
    if elements == 0 {
        return Ok(());
    }
    ops.device.launch(&ops.functions.group_norm_partial, [chunks.div_ceil(ROWS), groups, 1], &args)?;
    let shared = dim(groups * 2 * size_of::<f32>());
    let apply = &ops.functions.group_norm_apply;
    ops.device.launch_with(apply, ops.blocks(elements.div_ceil(4), apply.threads), shared, &args)
}
