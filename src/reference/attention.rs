//! Multi-head attention, one query at a time.

use super::buffer::{Buffer, Rows};
use crate::error::Result;
use crate::ops::{Attention, Pattern, Rope, View};

pub(super) fn attention(
    q: View<'_, Buffer>,
    k: View<'_, Buffer>,
    v: View<'_, Buffer>,
    spec: &Attention<'_, Buffer>,
    y: &mut Buffer,
) -> Result<()> {
    let (heads, d) = (spec.heads, spec.head_dim);
    let width = heads * d;
    check(spec);
    let rope = spec.rope.map(|rope| Turn::new(rope, d));
    let token = |position| rope_token(&spec.pattern, position);

    let q = Rows::new(q, spec.queries, width);
    let k = Rows::new(k, spec.keys, width);
    let v = Rows::new(v, spec.keys, width);
    let keys: Vec<_> = (0..spec.keys).map(|j| turn(&rope, k.row(j), token(j))).collect();
    let padding = Padding::new(&spec.pattern, &rope, width);

    let y = y.output(spec.queries * width)?;
    for i in 0..spec.queries {
        let query = turn(&rope, q.row(i), token(i));
        let seen = visible(&spec.pattern, i, spec.keys);
        for h in 0..heads {
            let head = h * d..(h + 1) * d;
            let scores: Vec<f64> = seen
                .iter()
                .map(|key| match *key {
                    Key::Token(j) => {
                        inner(&query[head.clone()], &keys[j][head.clone()]) * f64::from(spec.scale)
                            + bias(&spec.pattern, i, j, h, heads)
                    }
                    Key::Padding(t) => {
                        inner(&query[head.clone()], &padding.keys[t][head.clone()]) * f64::from(spec.scale)
                    }
                })
                .collect();
            let probabilities = softmax(&scores);
            for c in head {
                let sum: f64 = seen
                    .iter()
                    .zip(&probabilities)
                    .map(|(key, p)| match *key {
                        Key::Token(j) => p * f64::from(v.row(j)[c]),
                        Key::Padding(_) => p * padding.value(c),
                    })
                    .sum();
                y[i * width + c] = sum as f32;
            }
        }
    }
    Ok(())
}

/// A key that a query sees.
enum Key {
    /// The one of this row.
    Token(usize),
    /// A padded position of the query's window, by its token in the window.
    Padding(usize),
}

/// The keys that query `i` sees.
fn visible(pattern: &Pattern<'_, Buffer>, i: usize, keys: usize) -> Vec<Key> {
    match *pattern {
        Pattern::Full | Pattern::Boxes { .. } => (0..keys).map(Key::Token).collect(),
        Pattern::Causal => (0..=i).map(Key::Token).collect(),
        Pattern::Windows { height, width, size, .. } => {
            let (top, left) = (i / width / size * size, i % width / size * size);
            (0..size * size)
                .map(|t| {
                    let (y, x) = (top + t / size, left + t % size);
                    if y < height && x < width { Key::Token(y * width + x) } else { Key::Padding(t) }
                })
                .collect()
        }
    }
}

/// Row of the rotary table for a row of `q` or `k`.
fn rope_token(pattern: &Pattern<'_, Buffer>, position: usize) -> usize {
    match *pattern {
        Pattern::Windows { width, size, .. } => position / width % size * size + position % width % size,
        _ => position,
    }
}

/// Additive bias of query `i`, key `j`, head `h`.
fn bias(pattern: &Pattern<'_, Buffer>, i: usize, j: usize, h: usize, heads: usize) -> f64 {
    match *pattern {
        Pattern::Boxes { height, width, first, by, bx } if i >= first => {
            let by = by.slice(((i - first) * height + j / width) * heads, heads)[h];
            let bx = bx.slice(((i - first) * width + j % width) * heads, heads)[h];
            f64::from(by) + f64::from(bx)
        }
        _ => 0.0,
    }
}

/// Padded positions: one key per token of a window, since the rotary turn differs, and one value.
struct Padding<'a> {
    keys: Vec<Vec<f64>>,
    value: Option<&'a [f32]>,
}

impl<'a> Padding<'a> {
    fn new(pattern: &Pattern<'a, Buffer>, rope: &Option<Turn<'_>>, heads_width: usize) -> Self {
        match *pattern {
            Pattern::Windows { height, width, size, pad_k, pad_v } if height % size != 0 || width % size != 0 => {
                let key = Rows::new(pad_k, 1, heads_width).row(0);
                let keys = (0..size * size).map(|t| turn(rope, key, t)).collect();
                Self { keys, value: Some(Rows::new(pad_v, 1, heads_width).row(0)) }
            }
            _ => Self { keys: Vec::new(), value: None },
        }
    }

    fn value(&self, c: usize) -> f64 {
        f64::from(self.value.expect("only windows beyond the grid see padding")[c])
    }
}

/// A checked rotary table.
struct Turn<'a> {
    cos: Rows<'a>,
    sin: Rows<'a>,
    pairs: usize,
}

impl<'a> Turn<'a> {
    fn new(rope: &'a Rope<Buffer>, head_dim: usize) -> Self {
        assert_eq!(head_dim % 2, 0, "a rotary embedding turns pairs; the head's width is {head_dim}");
        let pairs = head_dim / 2;
        Self { cos: rope.cos.rows(rope.tokens, pairs), sin: rope.sin.rows(rope.tokens, pairs), pairs }
    }
}

/// `row` with the pairs `(a, b) = (2i, 2i + 1)` of every head turned: `(a·cos - b·sin, b·cos + a·sin)`.
fn turn(rope: &Option<Turn<'_>>, row: &[f32], token: usize) -> Vec<f64> {
    let mut row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
    if let Some(rope) = rope {
        for head in row.chunks_exact_mut(2 * rope.pairs) {
            for (i, pair) in head.chunks_exact_mut(2).enumerate() {
                let (cos, sin) = (f64::from(rope.cos.row(token)[i]), f64::from(rope.sin.row(token)[i]));
                let (a, b) = (pair[0], pair[1]);
                pair[0] = a * cos - b * sin;
                pair[1] = b * cos + a * sin;
            }
        }
    }
    row
}

/// `Σ aᵢ·bᵢ`
fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `exp(sᵢ) / Σ exp(sⱼ)`, shifted by the largest so that nothing overflows.
fn softmax(scores: &[f64]) -> Vec<f64> {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| e / sum).collect()
}

/// The dimensions a pattern prescribes.
fn check(spec: &Attention<'_, Buffer>) {
    let (queries, keys) = (spec.queries, spec.keys);
    assert!(
        spec.heads > 0 && spec.head_dim > 0,
        "an attention has heads, {}, of a width, {}",
        spec.heads,
        spec.head_dim
    );
    assert!(keys > 0 || queries == 0, "{queries} queries have no keys");
    let tokens = match spec.pattern {
        Pattern::Full => keys,
        Pattern::Causal => {
            assert_eq!(queries, keys, "queries and keys of a causal attention");
            keys
        }
        Pattern::Windows { height, width, size, .. } => {
            assert!(size > 0, "a window has a size");
            assert_eq!((queries, keys), (height * width, height * width), "tokens of a grid {height}×{width}");
            size * size
        }
        Pattern::Boxes { height, width, first, by, bx } => {
            assert_eq!(keys, height * width, "keys of a grid {height}×{width}");
            assert!(first <= queries, "first query with a box, {first}, of {queries}");
            by.rows(queries - first, height * spec.heads);
            bx.rows(queries - first, width * spec.heads);
            keys
        }
    };
    if let Some(rope) = spec.rope {
        assert_eq!(queries, keys, "queries and keys of a rotary attention");
        assert_eq!(rope.tokens, tokens, "tokens of the rotary table");
    }
}
