//! Multi-head attention.

use super::arguments::{AttentionArgs, HALF_ADD, HALF_W, HALF_X, HALF_Y, dim};
use super::functions::Hopper;
use super::memory::{Act, rows, rows_f32};
use super::tensor_map::{SplitArgs, TensorMap, TmaAttentionArgs};
use super::{CudaOps, Precision};
use crate::error::{Error, ErrorKind, Result};
use crate::ops::{Attention, Pattern, View};

/// Width of a head, queries and keys of a step, and tokens of a block of `split_heads` (kernels/attention_sm90a.cu).
const WIDTH: usize = 64;
const QUERIES: usize = 192;
const KEYS: usize = 96;
const SPLIT: usize = 32;

/// Hopper's kernels where they fit and are the faster ones: their tiles are so large that few of them leave
/// multiprocessors without work, and half of the multiprocessors are enough to win over mma.sync.
fn hopper<'a>(ops: &'a CudaOps, args: &AttentionArgs, windows: usize) -> Option<&'a Hopper> {
    let kernels = ops.functions.hopper.as_ref()?;
    let tiles = (args.queries as usize).div_ceil(QUERIES) * args.heads as usize * windows;
    let seen = matches!(args.pattern, 0 | 2);
    let fits = ops.precision == Precision::Bf16 && args.head_dim as usize == WIDTH && seen;
    (fits && tiles > 0 && 2 * tiles >= ops.processors).then_some(kernels)
}

/// Keys of a step of the kernels for Ampere (kernels/attention_bf16.cu).
const STEP: usize = 64;

/// Among how many blocks the keys of a tile of queries are shared: as many as fill every multiprocessor with two, if each
/// has two steps to do, so that what the joining reads is a small part of what the blocks do.
fn splits(ops: &CudaOps, args: &AttentionArgs, tiles: usize) -> usize {
    let steps = (args.keys as usize).div_ceil(STEP);
    let wanted = (2 * ops.processors / tiles.max(1)).min(steps / 2);
    if ops.precision == Precision::F32 || !matches!(args.pattern, 0 | 3) || wanted < 2 {
        return 1;
    }
    // None without keys.
    steps.div_ceil(steps.div_ceil(wanted))
}

/// Bytes of the heads of queries, keys and values, apart.
fn split_bytes(args: &AttentionArgs, windows: usize) -> [usize; 3] {
    let rows = windows * args.heads as usize;
    [args.queries, args.keys, args.keys].map(|tokens| rows * tokens as usize * WIDTH * size_of::<half::bf16>())
}

/// Enqueues Hopper's two steps, with the heads split to `behind`.
fn launch_hopper(ops: &CudaOps, kernels: &Hopper, attention: AttentionArgs, windows: usize, behind: u64) -> Result<()> {
    let [q_bytes, k_bytes, _] = split_bytes(&attention, windows).map(|n| n as u64);
    let (q, k, v) = (behind, behind + q_bytes, behind + q_bytes + k_bytes);
    let [queries, keys, heads] = [attention.queries, attention.keys, attention.heads].map(|n| n as usize);
    let grid = [queries.max(keys).div_ceil(SPLIT), heads, windows];
    ops.device.launch(&kernels.split_heads, grid, &SplitArgs { attention, q, k, v })?;
    let map = |address, tokens, rows: usize| {
        let lengths = [WIDTH, tokens, heads * windows];
        TensorMap::new(address, lengths, [WIDTH, tokens * WIDTH], [rows as u32, 1])
    };
    let args = TmaAttentionArgs {
        q: map(q, queries, QUERIES)?,
        k: map(k, keys, KEYS)?,
        v: map(v, keys, KEYS)?,
        attention,
        windows: dim(windows),
        ..TmaAttentionArgs::default()
    };
    let tiles = queries.div_ceil(QUERIES) * heads * windows;
    ops.device.launch(&kernels.attention, [tiles.min(ops.processors), 1, 1], &args)
}

pub(super) fn attention(
    ops: &CudaOps,
    q: View<'_, Act>,
    k: View<'_, Act>,
    v: View<'_, Act>,
    spec: &Attention<'_, Act>,
    y: &mut Act,
) -> Result<()> {
    let (heads, d) = (spec.heads, spec.head_dim);
    let (queries, keys, columns) = (spec.queries, spec.keys, heads * d);
    assert!(heads > 0 && d > 0, "an attention has heads, {heads}, of a width, {d}");
    assert!(keys > 0 || queries == 0, "{queries} queries have no keys");
    let [q_rows, k_rows, v_rows] = [(q, queries), (k, keys), (v, keys)].map(|(x, count)| rows(x, count, columns));
    let mut args = AttentionArgs {
        q: q_rows.address,
        k: k_rows.address,
        v: v_rows.address,
        half: q_rows.flag(HALF_X) | k_rows.flag(HALF_W) | v_rows.flag(HALF_ADD),
        ldq: dim(q.stride),
        ldk: dim(k.stride),
        ldv: dim(v.stride),
        heads: dim(heads),
        head_dim: dim(d),
        queries: dim(queries),
        keys: dim(keys),
        scale: spec.scale,
        ..AttentionArgs::default()
    };
    let mut windows = 1;
    match spec.pattern {
        Pattern::Full => {}
        Pattern::Causal => {
            assert_eq!(queries, keys, "queries and keys of a causal attention");
            args.pattern = 1;
        }
        Pattern::Windows { height, width, size, pad_k, pad_v } => {
            assert!(size > 0, "a window has a size");
            assert_eq!((queries, keys), (height * width, height * width), "tokens of a grid {height}×{width}");
            args.pattern = 2;
            (args.height, args.width, args.size) = (dim(height), dim(width), dim(size));
            (args.queries, args.keys) = (dim(size * size), dim(size * size));
            (args.pad_k, args.pad_v) = (rows_f32(pad_k, 1, columns), rows_f32(pad_v, 1, columns));
            windows = height.div_ceil(size) * width.div_ceil(size);
        }
        Pattern::Boxes { height, width, first, by, bx } => {
            assert_eq!(keys, height * width, "keys of a grid {height}×{width}");
            assert!(first <= queries, "first query with a box, {first}, of {queries}");
            args.pattern = 3;
            (args.height, args.width, args.first) = (dim(height), dim(width), dim(first));
            args.by = by.slice((queries - first) * height * heads);
            args.bx = bx.slice((queries - first) * width * heads);
        }
    }
    if let Some(rope) = spec.rope {
        assert_eq!(d % 2, 0, "a rotary embedding turns pairs; the head's width is {d}");
        assert_eq!(queries, keys, "queries and keys of a rotary attention");
        assert_eq!(rope.tokens, args.keys as usize, "tokens of the rotary table");
        args.cos = rope.cos.slice(rope.tokens * (d / 2));
        args.sin = rope.sin.slice(rope.tokens * (d / 2));
    }
    let kernels = match ops.precision {
        Precision::F32 => &ops.functions.attention_f32,
        Precision::Bf16 => &ops.functions.attention_bf16,
    };
    let Some((_, kernel)) = kernels.widths.iter().find(|(width, _)| d <= *width) else {
        return Err(Error::new(ErrorKind::Unsupported, format!("attention: expected heads of at most 128, found {d}")));
    };
    let grid = [(args.queries as usize).div_ceil(kernels.queries), heads, windows];
    let hopper = hopper(ops, &args, windows);
    let shares = splits(ops, &args, grid[0] * heads);
    let extra = match hopper {
        Some(_) => split_bytes(&args, windows).iter().sum(),
        None if shares > 1 => shares * heads * queries * (2 + d) * size_of::<f32>(),
        None => 0,
    };
    let (to, behind) = y.output_with(ops, queries * columns, extra)?;
    args.y = to.address;
    args.half |= to.flag(HALF_Y);
    if queries == 0 {
        return Ok(());
    }
    if let Some(kernels) = hopper {
        return launch_hopper(ops, kernels, args, windows, behind);
    }
    if shares > 1 {
        (args.splits, args.partial) = (dim(shares), behind);
        ops.device.launch(kernel, [grid[0], heads, shares], &args)?;
        let join = &ops.functions.attention_join;
        return ops.device.launch(join, ops.blocks(queries * columns, join.threads), &args);
    }
    ops.device.launch(kernel, grid, &args)
}
