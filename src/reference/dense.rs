//! Matrix products and the two convolutions.

use super::ReferenceOps;
use super::buffer::{Buffer, Rows};
use super::math::activate;
use crate::error::Result;
use crate::ops::{Activation, Epilogue, Linear, Turn, View};

/// `Σ aᵢ·bᵢ`
fn inner(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths of an inner product");
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// The bias `[n]`, zeros where there is none; checks the layer's matrix on the way.
fn bias(l: &Linear<ReferenceOps>) -> Vec<f64> {
    assert_eq!((l.w.n(), l.w.k()), (l.n, l.k), "shape [n, k] of a layer's matrix");
    match &l.b {
        Some(b) => b.slice(0, l.n).iter().map(|&b| f64::from(b)).collect(),
        None => vec![0.0; l.n],
    }
}

/// The rest of an epilogue before the turn, `act(sum + add[r, j])`, for an output `[rows, width]`.
struct Finish<'a> {
    add: Option<Rows<'a>>,
    act: Activation,
}

impl<'a> Finish<'a> {
    fn new(ep: Epilogue<'a, Buffer>, rows: usize, width: usize) -> Self {
        Self { add: ep.add.map(|add| Rows::new(add, rows, width)), act: ep.act }
    }

    fn apply(&self, sum: f64, r: usize, j: usize) -> f64 {
        let add = self.add.map_or(0.0, |add| f64::from(add.row(r)[j]));
        activate(self.act, sum + add)
    }
}

/// Turns the pairs of row `r`: `(a·cos - b·sin, b·cos + a·sin)`.
fn turn_row(turn: Turn<'_, Buffer>, r: usize, row: &mut [f64]) {
    let angles = turn.angles.slice(r * turn.head_dim, turn.head_dim);
    for head in row[..turn.columns].chunks_exact_mut(turn.head_dim) {
        for (pair, angle) in head.chunks_exact_mut(2).zip(angles.chunks_exact(2)) {
            let (a, b, cos, sin) = (pair[0], pair[1], f64::from(angle[0]), f64::from(angle[1]));
            pair[0] = a * cos - b * sin;
            pair[1] = b * cos + a * sin;
        }
    }
}

pub(super) fn linear(
    x: View<'_, Buffer>,
    l: &Linear<ReferenceOps>,
    m: usize,
    ep: Epilogue<'_, Buffer>,
    y: &mut Buffer,
) -> Result<()> {
    let b = bias(l);
    let x = Rows::new(x, m, l.k);
    if let Some(turn) = &ep.turn {
        turn.check(l.n);
    }
    let (turn, finish) = (ep.turn, Finish::new(ep, m, l.n));
    let y = y.output(m * l.n)?;
    for r in 0..m {
        let mut row: Vec<f64> = (0..l.n).map(|j| finish.apply(inner(x.row(r), l.w.row(j)) + b[j], r, j)).collect();
        if let Some(turn) = turn {
            turn_row(turn, r, &mut row);
        }
        y[r * l.n..][..l.n].iter_mut().zip(row).for_each(|(y, x)| *y = x as f32);
    }
    Ok(())
}

pub(super) fn dot(
    a: View<'_, Buffer>,
    m: usize,
    b: View<'_, Buffer>,
    n: usize,
    k: usize,
    y: &mut Buffer,
) -> Result<()> {
    let a = Rows::new(a, m, k);
    let b = Rows::new(b, n, k);
    let y = y.output(m * n)?;
    for r in 0..m {
        for j in 0..n {
            y[r * n + j] = inner(a.row(r), b.row(j)) as f32;
        }
    }
    Ok(())
}

pub(super) fn conv3x3(x: &Buffer, l: &Linear<ReferenceOps>, h: usize, w: usize, y: &mut Buffer) -> Result<()> {
    assert_eq!(l.k % 9, 0, "inputs of a 3×3 convolution, {}, are a multiple of 9", l.k);
    let (cin, cout) = (l.k / 9, l.n);
    let b = bias(l);
    let x = x.rows(h * w, cin);
    let y = y.output(h * w * cout)?;
    for i in 0..h {
        for j in 0..w {
            for co in 0..cout {
                let mut sum = b[co];
                for ky in 0..3 {
                    for kx in 0..3 {
                        // Input position (i + ky - 1, j + kx - 1); outside of the picture stand zeros.
                        let (yy, xx) = (i + ky, j + kx);
                        if (1..=h).contains(&yy) && (1..=w).contains(&xx) {
                            let tap = &l.w.row(co)[(ky * 3 + kx) * cin..][..cin];
                            sum += inner(x.row((yy - 1) * w + xx - 1), tap);
                        }
                    }
                }
                y[(i * w + j) * cout + co] = sum as f32;
            }
        }
    }
    Ok(())
}

pub(super) fn deconv2x2(
    x: &Buffer,
    l: &Linear<ReferenceOps>,
    h: usize,
    w: usize,
    ep: Epilogue<'_, Buffer>,
    y: &mut Buffer,
) -> Result<()> {
    assert_eq!(l.n % 4, 0, "outputs of a 2×2 transposed convolution, {}, are a multiple of 4", l.n);
    assert!(ep.turn.is_none(), "a transposed convolution has no rotary turn");
    let (cin, cout) = (l.k, l.n / 4);
    let b = bias(l);
    let x = x.rows(h * w, cin);
    let finish = Finish::new(ep, 4 * h * w, cout);
    let y = y.output(4 * h * w * cout)?;
    for i in 0..2 * h {
        for j in 0..2 * w {
            let input = x.row(i / 2 * w + j / 2);
            let out = i * 2 * w + j;
            for co in 0..cout {
                // (dy, dx, cout)
                let n = (i % 2 * 2 + j % 2) * cout + co;
                y[out * cout + co] = finish.apply(inner(input, l.w.row(n)) + b[n], out, co) as f32;
            }
        }
    }
    Ok(())
}
