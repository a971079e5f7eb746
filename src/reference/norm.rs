//! Layer and group norm.

use super::ReferenceOps;
use super::buffer::{Buffer, Rows};
use super::math::activate;
use crate::error::Result;
use crate::ops::{Activation, Norm, View};

/// Mean and `1/√(var + eps)` with the biased variance, in two passes so that nothing cancels.
fn statistics(values: impl Iterator<Item = f32> + Clone, eps: f32) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().map(f64::from).sum::<f64>() / count;
    let var = values.map(|x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
    (mean, 1.0 / (var + f64::from(eps)).sqrt())
}

pub(super) fn layer_norm(
    x: View<'_, Buffer>,
    norm: &Norm<ReferenceOps>,
    rows: usize,
    act: Activation,
    y: &mut Buffer,
) -> Result<()> {
    let width = norm.width;
    let x = Rows::new(x, rows, width);
    let (gamma, beta) = (norm.gamma.slice(0, width), norm.beta.slice(0, width));
    let y = y.output(rows * width)?;
    for r in 0..rows {
        let (mean, scale) = statistics(x.row(r).iter().copied(), norm.eps);
        for c in 0..width {
            let normal = (f64::from(x.row(r)[c]) - mean) * scale;
            y[r * width + c] = activate(act, normal * f64::from(gamma[c]) + f64::from(beta[c])) as f32;
        }
    }
    Ok(())
}

pub(super) fn group_norm(
    x: &Buffer,
    norm: &Norm<ReferenceOps>,
    groups: usize,
    rows: usize,
    act: Activation,
    y: &mut Buffer,
) -> Result<()> {
    let width = norm.width;
    assert!(groups > 0 && width.is_multiple_of(groups), "{groups} groups of {width} channels");
    let channels = width / groups;
    let x = x.rows(rows, width);
    let (gamma, beta) = (norm.gamma.slice(0, width), norm.beta.slice(0, width));
    let y = y.output(rows * width)?;
    for group in 0..groups {
        let group = group * channels..(group + 1) * channels;
        let members = (0..rows).flat_map(|r| x.row(r)[group.clone()].iter().copied());
        let (mean, scale) = statistics(members, norm.eps);
        for r in 0..rows {
            for c in group.clone() {
                let normal = (f64::from(x.row(r)[c]) - mean) * scale;
                y[r * width + c] = activate(act, normal * f64::from(gamma[c]) + f64::from(beta[c])) as f32;
            }
        }
    }
    Ok(())
}
