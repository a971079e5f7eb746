//! Products against f64, on every instruction set, around every edge of the tiles.

use super::*;
use crate::cpu::Matrix;
use crate::cpu::activation::tests::normal_cdf;
use crate::cpu::tests::{noise, pools};
use crate::ops::Ops;
use crate::weights::{Dtype, HostTensor};

/// The product and its epilogue in f64.
fn definition(a: &[f32], b: &[f32], (m, n, k): (usize, usize, usize), after: After<'_>) -> Vec<f64> {
    let mut y = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let row = a[i * k..][..k].iter().zip(&b[j * k..][..k]);
            let mut sum: f64 = row.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            sum += after.bias.map_or(0.0, |b| f64::from(b[j]));
            sum += after.add.map_or(0.0, |add| f64::from(add.row(i, n)[j]));
            y.push(match after.act {
                Activation::None => sum,
                Activation::Relu => sum.max(0.0),
                Activation::Gelu => sum * normal_cdf(sum),
            });
        }
        if let Some(Turn { angles, head_dim, columns }) = after.turn {
            for j in (0..columns).step_by(2) {
                let angle = &angles[i * head_dim + j % head_dim..][..2];
                let (a, b, cos, sin) = (y[i * n + j], y[i * n + j + 1], f64::from(angle[0]), f64::from(angle[1]));
                (y[i * n + j], y[i * n + j + 1]) = (a * cos - b * sin, b * cos + a * sin);
            }
        }
    }
    y
}

/// Inputs are within -1..1: each of the `k` additions and the epilogue's three rounds a sum of at most `k + 2`, though
/// errors of such sums behave like √k rather than k; 2 for the activation's slope and its own error.
fn tolerance(k: usize) -> f64 {
    2.0 * f64::from(f32::EPSILON) * (k + 3) as f64
}

fn compare(y: &[f32], want: &[f64], n: usize, k: usize, what: &str) {
    assert_eq!(y.len(), want.len());
    for (i, (&y, &want)) in y.iter().zip(want).enumerate() {
        let error = (f64::from(y) - want).abs();
        assert!(error <= tolerance(k), "{what} at [{}, {}]: {y} for {want}", i / n, i % n);
    }
}

fn check(pool: &Pool, isa: Isa, (m, n, k): (usize, usize, usize), after: After<'_>) {
    let (a, b) = (noise(m * k, 1), noise(n * k, 2));
    let rows = Strided { data: &a, offset: 0, stride: k };
    let columns = Activations { rows: Strided { data: &b, offset: 0, stride: k }, width: k };
    let mut y = vec![f32::NAN; m * n];
    gemm(pool, isa, &rows, &columns, (m, n, k), after, &mut y);
    compare(&y, &definition(&a, &b, (m, n, k), after), n, k, &format!("{isa} {m}x{n}x{k}"));
}

#[test]
fn every_remainder_of_the_tile() {
    for (pool, isa) in pools() {
        let (mr, nr) = isa.run(TileSize);
        // Both paths, and up to two tiles and one more in each direction.
        for m in (1..=FEW + 2 * mr + 1).filter(|m| m % 5 < 3) {
            for n in [1, 2, nr - 1, nr, nr + 1, 2 * nr + 3] {
                check(&pool, isa, (m, n, 19), After::NOTHING);
            }
        }
        for n in 1..=2 * nr + 1 {
            check(&pool, isa, (FEW + 1, n, 5), After::NOTHING);
            check(&pool, isa, (3, n, 5), After::NOTHING);
        }
    }
}

#[test]
fn every_remainder_of_the_inner_dimension() {
    for (pool, isa) in pools() {
        for k in (1..=66).chain([255, 256, 257, 300, 511, 512, 513, 800]) {
            check(&pool, isa, (FEW + 3, 35, k), After::NOTHING);
            check(&pool, isa, (5, 35, k), After::NOTHING);
        }
    }
}

#[test]
fn several_blocks_of_rows_and_columns() {
    for (pool, isa) in pools() {
        check(&pool, isa, (3 * ROWS + 7, 70, 33), After::NOTHING);
        // Blocks of all their rows, by more columns than they are given at a time, deeper than one panel.
        check(&pool, isa, (4 * pool.threads() * ROWS + 7, SUMS / ROWS + 41, DEPTH + 3), After::NOTHING);
        check(&pool, isa, (FEW, SUMS / ROWS + 41, 3), After::NOTHING);
        check(&pool, isa, (2, SUMS / ROWS + 41, 3), After::NOTHING);
    }
}

#[test]
fn epilogues() {
    let bias = noise(67, 3);
    let add = noise(70 * 80, 4);
    for (pool, isa) in pools() {
        for m in [3, 40] {
            for k in [7, 300] {
                for act in [Activation::None, Activation::Relu, Activation::Gelu] {
                    let add = Strided { data: &add, offset: 9, stride: 80 };
                    check(&pool, isa, (m, 67, k), After { bias: Some(&bias), add: Some(add), act, turn: None });
                    check(&pool, isa, (m, 67, k), After { bias: Some(&bias), add: None, act, turn: None });
                    check(&pool, isa, (m, 67, k), After { bias: None, add: Some(add), act, turn: None });
                }
            }
        }
    }
}

#[test]
fn turns() {
    let bias = noise(300, 3);
    for (pool, isa) in pools() {
        for m in [1, 3, 39, 40, 75] {
            // Heads beside the panels' width, some, all or none of the columns, an odd one at the end.
            for (head_dim, columns, n) in
                [(2, 2, 2), (6, 12, 31), (8, 0, 9), (10, 50, 50), (24, 72, 75), (64, 128, 192)]
            {
                let angles: Vec<f32> = noise(m * head_dim / 2, 5).iter().flat_map(|a| [a.cos(), a.sin()]).collect();
                let turn = Some(Turn { angles: &angles, head_dim, columns });
                check(&pool, isa, (m, n, 9), After { bias: Some(&bias[..n]), turn, ..After::NOTHING });
                check(&pool, isa, (m, n, 300), After { act: Activation::Gelu, turn, ..After::NOTHING });
            }
        }
    }
}

/// A tensor `[n, k]` of a stored type.
fn stored(n: usize, k: usize, dtype: Dtype, seed: u64) -> HostTensor {
    let values = noise(n * k, seed);
    let bytes: Vec<u8> = match dtype {
        Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Dtype::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
        Dtype::Bf16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
    };
    HostTensor::from_bytes("w", &[n, k], dtype, bytes).unwrap()
}

#[test]
fn stacked_parts_of_all_types() {
    let k = 37;
    // Borders inside a vector, inside a tile and at neither.
    let parts = [
        stored(3, k, Dtype::Bf16, 5),
        stored(30, k, Dtype::F16, 6),
        stored(1, k, Dtype::F32, 7),
        stored(64, k, Dtype::Bf16, 8),
    ];
    let n = 98;
    let b: Vec<f32> = parts.iter().flat_map(HostTensor::to_f32).collect();
    for isa in Isa::available() {
        let ops = crate::cpu::CpuOps::new(Some(2), isa).unwrap();
        let matrix: Matrix = ops.matrix(&parts).unwrap();
        for m in [1, 2, 3, 4, 7, 30] {
            let a = noise(m * k, 9);
            let mut y = vec![f32::NAN; m * n];
            let rows = Strided { data: &a, offset: 0, stride: k };
            gemm(&ops.pool, isa, &rows, &matrix, (m, n, k), After::NOTHING, &mut y);
            compare(&y, &definition(&a, &b, (m, n, k), After::NOTHING), n, k, &format!("{isa} m = {m}"));
        }
    }
}

#[test]
fn rows_end_with_their_buffer() {
    let (m, n, k) = (30, 9, 21);
    let (data, b) = (noise(5 + (m - 1) * 40 + k, 1), noise(n * k, 2));
    let rows = Strided { data: &data, offset: 5, stride: 40 };
    let a: Vec<f32> = (0..m).flat_map(|i| rows.row(i, k).to_vec()).collect();
    for (pool, isa) in pools() {
        let columns = Activations { rows: Strided { data: &b, offset: 0, stride: k }, width: k };
        let mut y = vec![f32::NAN; m * n];
        gemm(&pool, isa, &rows, &columns, (m, n, k), After::NOTHING, &mut y);
        compare(&y, &definition(&a, &b, (m, n, k), After::NOTHING), n, k, isa.name());
    }
}
