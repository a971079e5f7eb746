//! Multi-head attention, one query at a time.

use super::buffer::{Buffer, Rows};
use crate::error::Result;
use crate::ops::{Attention, Padding, Pattern, View};

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
    let q = Rows::new(q, spec.queries, width);
    let k = Rows::new(k, spec.keys, width);
    let v = Rows::new(v, spec.keys, width);
    let (pad_k, pad_v) = match spec.pattern {
        Pattern::Windows { size, padding: Some(Padding { k, v }), .. } => {
            (Some(Rows::new(k, size * size, width)), Some(Rows::new(v, 1, width)))
        }
        _ => (None, None),
    };
    let key = |key: &Key| match *key {
        Key::Token(j) => k.row(j),
        Key::Padding(t) => pad_k.expect("windows that hang over the grid have padding").row(t),
    };
    let value = |key: &Key| match *key {
        Key::Token(j) => v.row(j),
        Key::Padding(_) => pad_v.expect("windows that hang over the grid have padding").row(0),
    };

    let y = y.output(spec.queries * width)?;
    for i in 0..spec.queries {
        let seen = visible(&spec.pattern, i, spec.keys);
        for h in 0..heads {
            let head = h * d..(h + 1) * d;
            let scores: Vec<f64> = seen
                .iter()
                .map(|seen| {
                    let bias = match *seen {
                        Key::Token(j) => bias(&spec.pattern, i, j, h, heads),
                        Key::Padding(_) => 0.0,
                    };
                    inner(&q.row(i)[head.clone()], &key(seen)[head.clone()]) * f64::from(spec.scale) + bias
                })
                .collect();
            let probabilities = softmax(&scores);
            for c in head {
                let sum: f64 = seen.iter().zip(&probabilities).map(|(key, p)| p * f64::from(value(key)[c])).sum();
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

/// `Σ aᵢ·bᵢ`
fn inner(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
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
    match spec.pattern {
        Pattern::Full => {}
        Pattern::Causal => assert_eq!(queries, keys, "queries and keys of a causal attention"),
        Pattern::Windows { height, width, size, .. } => {
            assert!(size > 0, "a window has a size");
            assert_eq!((queries, keys), (height * width, height * width), "tokens of a grid {height}×{width}");
        }
        Pattern::Boxes { height, width, first, by, bx } => {
            assert_eq!(keys, height * width, "keys of a grid {height}×{width}");
            assert!(first <= queries, "first query with a box, {first}, of {queries}");
            by.rows(queries - first, height * spec.heads);
            bx.rows(queries - first, width * spec.heads);
        }
    }
}
