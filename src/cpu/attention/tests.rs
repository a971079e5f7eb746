//! Every pattern against the definition in f64.

use super::*;
use crate::cpu::tests::{noise, pools};

/// A row of a head, turned, in f64.
fn turned(x: &[f32], table: Option<Turn<'_>>, token: usize) -> Vec<f64> {
    let mut y: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
    if let Some(Turn { cos, sin }) = table {
        let half = x.len() / 2;
        for i in 0..half {
            let (c, s) = (f64::from(cos[token * half + i]), f64::from(sin[token * half + i]));
            (y[2 * i], y[2 * i + 1]) = (y[2 * i] * c - y[2 * i + 1] * s, y[2 * i + 1] * c + y[2 * i] * s);
        }
    }
    y
}

/// One output row of one head.
fn definition(spec: &Spec<'_>, query: usize, head: usize) -> Vec<f64> {
    let dim = spec.head_dim;
    let of_head = |x: Strided<'_>, row: usize| x.row(row, (head + 1) * dim)[head * dim..].to_vec();
    // Every key the query sees: its row, its value, its place in the rotary table, its bias.
    let mut seen: Vec<(Vec<f32>, Vec<f32>, usize, f64)> = Vec::new();
    let mut query_token = query;
    match spec.pattern {
        Keys::Windows { height, width, size, pad_k, pad_v } => {
            let (y, x) = (query / width, query % width);
            query_token = y % size * size + x % size;
            for ky in 0..size {
                for kx in 0..size {
                    let (gy, gx) = (y / size * size + ky, x / size * size + kx);
                    let (k, v) = if gy < height && gx < width {
                        (of_head(spec.k, gy * width + gx), of_head(spec.v, gy * width + gx))
                    } else {
                        (pad_k[head * dim..][..dim].to_vec(), pad_v[head * dim..][..dim].to_vec())
                    };
                    seen.push((k, v, ky * size + kx, 0.0));
                }
            }
        }
        pattern => {
            for key in 0..spec.keys {
                let bias = match pattern {
                    Keys::Causal if key > query => continue,
                    Keys::Boxes { height, width, first, by, bx } if query >= first => {
                        let (y, x) = (key / width, key % width);
                        let row = f64::from(by[((query - first) * height + y) * spec.heads + head]);
                        row + f64::from(bx[((query - first) * width + x) * spec.heads + head])
                    }
                    _ => 0.0,
                };
                seen.push((of_head(spec.k, key), of_head(spec.v, key), key, bias));
            }
        }
    }
    let q = turned(&of_head(spec.q, query), spec.turn, query_token);
    let score = |(k, _, token, bias): &(Vec<f32>, Vec<f32>, usize, f64)| {
        let k = turned(k, spec.turn, *token);
        q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * f64::from(spec.scale) + bias
    };
    let scores: Vec<f64> = seen.iter().map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    (0..dim)
        .map(|c| seen.iter().zip(&weights).map(|((_, v, ..), w)| f64::from(v[c]) * w).sum::<f64>() / total)
        .collect()
}

/// Runs a call on every instruction set, on noise of the call's size with keys of magnitude `spread`.
fn check(
    (heads, head_dim): (usize, usize),
    (queries, keys): (usize, usize),
    tokens: Option<usize>,
    spread: f32,
    pattern: Keys<'_>,
) {
    let width = heads * head_dim;
    // q, k and v as columns of wider rows, the last of which ends with its buffer.
    let q = noise(3 + (queries - 1) * (width + 5) + width, 1);
    let kv: Vec<f32> = noise((keys - 1) * 2 * width + 2 * width, 2).iter().map(|x| x * spread).collect();
    let angles: Vec<f32> = noise(tokens.unwrap_or(0) * (head_dim / 2), 3).iter().map(|x| x * 3.0).collect();
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
    let spec = Spec {
        q: Strided { data: &q, offset: 3, stride: width + 5 },
        k: Strided { data: &kv, offset: 0, stride: 2 * width },
        v: Strided { data: &kv, offset: width, stride: 2 * width },
        heads,
        head_dim,
        queries,
        keys,
        scale: 1.0 / (head_dim as f32).sqrt(),
        turn: tokens.map(|_| Turn { cos: &cos, sin: &sin }),
        pattern,
    };
    // A sample of rows where the definition would take long.
    let step = queries.div_ceil(60);
    let rows: Vec<usize> = (0..queries).step_by(step).chain([queries - 1]).collect();
    let wanted: Vec<Vec<f64>> =
        rows.iter().flat_map(|&row| (0..heads).map(move |h| (row, h))).map(|(r, h)| definition(&spec, r, h)).collect();
    for (pool, isa) in pools() {
        let mut y = vec![f32::NAN; queries * width];
        attention(&pool, isa, spec, &mut y);
        assert!(y.iter().all(|y| y.is_finite()), "{isa}: all rows are written");
        for (i, want) in wanted.iter().enumerate() {
            let (row, head) = (rows[i / heads], i % heads);
            for (c, (&y, want)) in y[row * width + head * head_dim..].iter().zip(want).enumerate() {
                // A score's error, some eps · |q·k|, is a weight's relative error, sums of DEPTH weights add as much
                // again; values are within `spread`.
                let tolerance = f64::from(5e-6 * spread * spread.max(1.0));
                let error = (f64::from(y) - want).abs();
                assert!(error < tolerance, "{isa}: query {row}, head {head}, column {c}: {y} for {want}");
            }
        }
    }
}

#[test]
fn full_over_all_sizes() {
    for (queries, keys) in [(1, 1), (2, 3), (7, 33), (97, 100), (1, 600), (200, 256), (201, 513)] {
        check((2, 32), (queries, keys), None, 1.0, Keys::Full);
    }
}

#[test]
fn heads_of_odd_widths() {
    for dim in [1usize, 2, 8, 10, 12, 16, 17, 31, 64, 65, 128, 256] {
        let tokens = dim.is_multiple_of(2).then_some(70);
        check((3, dim), (70, 70), tokens, 1.0, Keys::Full);
    }
}

#[test]
fn scores_of_any_magnitude() {
    // Weights between 1 and zero, maxima that rise block by block.
    check((2, 64), (50, 900), None, 40.0, Keys::Full);
}

#[test]
fn causal() {
    for tokens in [1, 2, 32, 97, 300, 530] {
        check((2, 16), (tokens, tokens), None, 1.0, Keys::Causal);
    }
}

#[test]
fn windows_with_and_without_padding() {
    for (dim, height, width, size) in [(8, 6, 6, 3), (64, 12, 12, 12), (16, 7, 5, 3), (32, 10, 26, 12), (16, 2, 3, 24)]
    {
        let (pad_k, pad_v) = (noise(2 * dim, 8), noise(2 * dim, 9));
        let pattern = Keys::Windows { height, width, size, pad_k: &pad_k, pad_v: &pad_v };
        check((2, dim), (height * width, height * width), Some(size * size), 1.0, pattern);
        check((2, dim), (height * width, height * width), None, 1.0, pattern);
    }
}

#[test]
fn box_bias() {
    for (height, width, first, queries) in [(3, 5, 1, 4), (20, 30, 1, 120), (9, 33, 0, 3), (24, 24, 100, 130)] {
        let boxes = queries - first;
        let by: Vec<f32> = noise(boxes * height * 2, 10).iter().map(|x| x * 4.0).collect();
        let bx: Vec<f32> = noise(boxes * width * 2, 11).iter().map(|x| x * 4.0).collect();
        let pattern = Keys::Boxes { height, width, first, by: &by, bx: &bx };
        check((2, 32), (queries, height * width), None, 1.0, pattern);
    }
}
