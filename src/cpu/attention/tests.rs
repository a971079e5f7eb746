//! Every pattern against the definition in f64.

use super::*;
use crate::cpu::tests::{noise, pools};

/// One output row of one head.
fn definition(spec: &Spec<'_>, query: usize, head: usize) -> Vec<f64> {
    let dim = spec.head_dim;
    let of_head = |x: Strided<'_>, row: usize| x.row(row, (head + 1) * dim)[head * dim..].to_vec();
    // Every key the query sees: its row, its value, its bias.
    let mut seen: Vec<(Vec<f32>, Vec<f32>, f64)> = Vec::new();
    match spec.pattern {
        Keys::Windows { height, width, size, padding } => {
            let (y, x) = (query / width, query % width);
            for ky in 0..size {
                for kx in 0..size {
                    let (gy, gx) = (y / size * size + ky, x / size * size + kx);
                    let (k, v) = if gy < height && gx < width {
                        (of_head(spec.k, gy * width + gx), of_head(spec.v, gy * width + gx))
                    } else {
                        let Pad { k, v } = padding.unwrap();
                        (of_head(k, ky * size + kx), v[head * dim..][..dim].to_vec())
                    };
                    seen.push((k, v, 0.0));
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
                seen.push((of_head(spec.k, key), of_head(spec.v, key), bias));
            }
        }
    }
    let q = of_head(spec.q, query);
    let score = |(k, _, bias): &(Vec<f32>, Vec<f32>, f64)| {
        let product = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>();
        product * f64::from(spec.scale) + bias
    };
    let scores: Vec<f64> = seen.iter().map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    (0..dim).map(|c| seen.iter().zip(&weights).map(|((_, v, _), w)| f64::from(v[c]) * w).sum::<f64>() / total).collect()
}

/// Runs a call on every instruction set, on noise of the call's size with keys of magnitude `spread`.
fn check((heads, head_dim): (usize, usize), (queries, keys): (usize, usize), spread: f32, pattern: Keys<'_>) {
    let width = heads * head_dim;
    // q, k and v as columns of wider rows, the last of which ends with its buffer.
    let q = noise(3 + (queries - 1) * (width + 5) + width, 1);
    let kv: Vec<f32> = noise((keys - 1) * 2 * width + 2 * width, 2).iter().map(|x| x * spread).collect();
    let spec = Spec {
        q: Strided { data: &q, offset: 3, stride: width + 5 },
        k: Strided { data: &kv, offset: 0, stride: 2 * width },
        v: Strided { data: &kv, offset: width, stride: 2 * width },
        heads,
        head_dim,
        queries,
        keys,
        scale: 1.0 / (head_dim as f32).sqrt(),
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
        check((2, 32), (queries, keys), 1.0, Keys::Full);
    }
}

#[test]
fn heads_of_odd_widths() {
    for dim in [1usize, 2, 8, 10, 12, 16, 17, 31, 64, 65, 128, 256] {
        check((3, dim), (70, 70), 1.0, Keys::Full);
    }
}

#[test]
fn scores_of_any_magnitude() {
    // Weights between 1 and zero, maxima that rise block by block.
    check((2, 64), (50, 900), 40.0, Keys::Full);
}

#[test]
fn causal() {
    for tokens in [1, 2, 32, 97, 300, 530] {
        check((2, 16), (tokens, tokens), 1.0, Keys::Causal);
    }
}

#[test]
fn windows_with_and_without_padding() {
    for (dim, height, width, size) in [(8, 6, 6, 3), (64, 12, 12, 12), (16, 7, 5, 3), (32, 10, 26, 12), (16, 2, 3, 24)]
    {
        let (k, v) = (noise(size * size * 2 * dim, 8), noise(2 * dim, 9));
        let k = Strided { data: &k, offset: 0, stride: 2 * dim };
        let over = height % size != 0 || width % size != 0;
        let pattern = Keys::Windows { height, width, size, padding: over.then_some(Pad { k, v: &v }) };
        check((2, dim), (height * width, height * width), 1.0, pattern);
    }
}

#[test]
fn box_bias() {
    for (height, width, first, queries) in [(3, 5, 1, 4), (20, 30, 1, 120), (9, 33, 0, 3), (24, 24, 100, 130)] {
        let boxes = queries - first;
        let by: Vec<f32> = noise(boxes * height * 2, 10).iter().map(|x| x * 4.0).collect();
        let bx: Vec<f32> = noise(boxes * width * 2, 11).iter().map(|x| x * 4.0).collect();
        let pattern = Keys::Boxes { height, width, first, by: &by, bx: &bx };
        check((2, 32), (queries, height * width), 1.0, pattern);
    }
}
