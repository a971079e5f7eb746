//! Multi-head attention.

use super::arguments::{AttentionArgs, HALF_ADD, HALF_W, HALF_X, HALF_Y, dim};
use super::functions::Function;
use super::memory::{Act, rows, rows_f32};
use super::tensor_map::{ALIGNMENT, TensorMap, TmaAttentionArgs};
use super::{CudaOps, Precision};
use crate::error::{Error, ErrorKind, Result};
use crate::ops::{Attention, Padding, Pattern, View};

/// Widths of heads, columns that are fetched together, and queries and keys of a step of Hopper's kernels
/// (kernels/attention_sm90a.cu).
const WIDTHS: [usize; 2] = [64, 32];
const QUERIES: usize = 192;
const KEYS: usize = 96;

/// Fewest of the queries of a tile that must be there.
const LEAST: usize = QUERIES / 2;

/// Hopper's kernel where it fits and is the faster one.
///
/// It reads rows of bf16 at aligned addresses, tokens as they follow each other or whole rows of windows that do not hang
/// over the grid. Its tiles are so large that few of them leave multiprocessors without work, and half of the
/// multiprocessors are enough to win over mma.sync, as are half of the tiles' queries. Where a tile of keys goes on below its
/// window, it multiplies what stands there by a probability of 0: values are finite.
fn hopper<'a>(ops: &'a CudaOps, args: &AttentionArgs, windows: usize) -> Option<&'a Function<TmaAttentionArgs>> {
    let kernels = ops.functions.hopper.as_ref()?;
    let [queries, size, height, width] = [args.queries, args.size, args.height, args.width].map(|n| n as usize);
    let blocks = queries.div_ceil(QUERIES);
    let tiles = blocks * args.heads as usize * windows;
    let seen = match args.pattern {
        0 => true,
        2 => {
            let whole = height.is_multiple_of(size) && width.is_multiple_of(size) && KEYS.is_multiple_of(size);
            whole && queries >= blocks * LEAST
        }
        _ => false,
    };
    let aligned = [(args.q, args.ldq), (args.k, args.ldk), (args.v, args.ldv)].iter().all(|&(address, ld)| {
        address.is_multiple_of(ALIGNMENT as u64) && (ld as usize * size_of::<half::bf16>()).is_multiple_of(ALIGNMENT)
    });
    let half = HALF_X | HALF_W | HALF_ADD;
    let width = WIDTHS.iter().position(|&w| w == args.head_dim as usize)?;
    let fits = ops.precision == Precision::Bf16 && args.half & half == half;
    (fits && aligned && seen && tiles > 0 && 2 * tiles >= ops.processors).then_some(&kernels.attention[width])
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

/// Shared memory that a launch may have beside the kernel's own, of what every launch may have.
const BIAS_BYTES: usize = 32 << 10;

/// Rows of the grid that a block's share of the keys touches, and the bytes of the bias of boxes that it then keeps in shared
/// memory (kernels/attention_bf16.cu), if that is little enough; none where a block of keys may touch three rows.
fn box_rows(args: &AttentionArgs, queries: usize, shares: usize) -> Option<(usize, usize)> {
    let [keys, width] = [args.keys, args.width].map(|n| n as usize);
    let share = keys.div_ceil(STEP).div_ceil(shares) * STEP;
    // A share may begin and end within a row, and its last block go on below the grid.
    let rows = share.div_ceil(width.max(1)) + 1;
    let bytes = queries * (width + rows) * size_of::<f32>();
    (args.pattern == 3 && width >= STEP && bytes <= BIAS_BYTES).then_some((rows, bytes))
}

/// Enqueues Hopper's kernel, whose maps are of the rows as they lie: a box is 64 columns of a tile's tokens.
fn launch_hopper(
    ops: &CudaOps,
    kernel: &Function<TmaAttentionArgs>,
    attention: AttentionArgs,
    windows: usize,
) -> Result<()> {
    let a = &attention;
    let [queries, heads, size] = [a.queries, a.heads, a.size].map(|n| n as usize);
    let map = |address, ld: u32, tokens: u32, tile: usize| {
        let ([width, height], boxes) = match size {
            0 => ([tokens as usize, 1], [tile, 1]),
            _ => ([a.width as usize, a.height as usize], [size, tile / size]),
        };
        let lengths = [heads * a.head_dim as usize, width, height];
        TensorMap::new(address, lengths, [ld as usize, width * ld as usize], boxes.map(|n| n as u32))
    };
    let args = TmaAttentionArgs {
        q: map(a.q, a.ldq, a.queries, QUERIES)?,
        k: map(a.k, a.ldk, a.keys, KEYS)?,
        v: map(a.v, a.ldv, a.keys, KEYS)?,
        attention,
        windows: dim(windows),
        ..TmaAttentionArgs::default()
    };
    let tiles = queries.div_ceil(QUERIES) * heads * windows;
    ops.device.launch(kernel, [tiles.min(ops.processors), 1, 1], &args)
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
        Pattern::Windows { height, width, size, padding } => {
            assert!(size > 0, "a window has a size");
            assert_eq!((queries, keys), (height * width, height * width), "tokens of a grid {height}×{width}");
            args.pattern = 2;
            (args.height, args.width, args.size) = (dim(height), dim(width), dim(size));
            (args.queries, args.keys) = (dim(size * size), dim(size * size));
            if let Some(Padding { k, v }) = padding {
                (args.pad_k, args.ld_pad) = (rows_f32(k, size * size, columns), dim(k.stride));
                args.pad_v = rows_f32(v, 1, columns);
            } else {
                let whole = height.is_multiple_of(size) && width.is_multiple_of(size);
                assert!(whole, "windows of {size} hang over a grid {height}×{width} and have padding");
            }
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
        None if shares > 1 => shares * heads * queries * (2 + d) * size_of::<f32>(),
        _ => 0,
    };
    let (to, behind) = y.output_with(ops, queries * columns, extra)?;
    args.y = to.address;
    args.half |= to.flag(HALF_Y);
    if queries == 0 {
        return Ok(());
    }
    if let Some(kernels) = hopper {
        return launch_hopper(ops, kernels, args, windows);
    }
    let bias = box_rows(&args, kernels.queries, shares).filter(|_| ops.precision == Precision::Bf16);
    args.size = bias.map_or(args.size, |(rows, _)| dim(rows));
    let shared = kernel.shared_bytes + dim(bias.map_or(0, |(_, bytes)| bytes));
    if shares > 1 {
        (args.splits, args.partial) = (dim(shares), behind);
        ops.device.launch_with(kernel, [grid[0], heads, shares], shared, &args)?;
        let join = &ops.functions.attention_join;
        return ops.device.launch(join, ops.blocks(queries * columns, join.threads), &args);
    }
    ops.device.launch_with(kernel, grid, shared, &args)
}
