//! Multi-head attention.

use super::arguments::{AttentionArgs, dim};
use super::memory::{Act, rows};
use super::{CudaOps, Precision};
use crate::error::{Error, ErrorKind, Result};
use crate::ops::{Attention, Pattern, View};

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
    let mut args = AttentionArgs {
        q: rows(q, queries, columns),
        k: rows(k, keys, columns),
        v: rows(v, keys, columns),
        y: y.output(&ops.device, queries * columns)?,
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
            (args.pad_k, args.pad_v) = (rows(pad_k, 1, columns), rows(pad_v, 1, columns));
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
    if queries == 0 {
        return Ok(());
    }
    let grid = [(args.queries as usize).div_ceil(kernels.queries), heads, windows];
    ops.device.launch(kernel, grid, &args)
}
