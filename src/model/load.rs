//! From named tensors to the weights of a back end.
//!
//! Names are the published layout's; the checkpoint resolves the other layouts and has checked every shape against its
//! table before anything here runs. Convolutions are re-ordered once to the order the operations state; everything
//! else stays as the file holds it.

use crate::error::Result;
use crate::ops::{Linear, Norm, Ops};
use crate::weights::{Checkpoint, HostTensor};

/// Where weights come from and where they go.
pub struct Loader<'a, O: Ops> {
    /// The back end that takes them.
    pub ops: &'a O,
    /// The verified checkpoint.
    pub checkpoint: &'a Checkpoint,
}

impl<O: Ops> Loader<'_, O> {
    fn tensor(&self, name: &str) -> Result<HostTensor> {
        self.checkpoint.tensor(name)
    }

    /// A tensor's values on the host.
    pub fn host(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.tensor(name)?.to_f32())
    }

    /// A small tensor as an activation: an embedding row, a bias.
    pub fn act(&self, name: &str) -> Result<O::Act> {
        self.upload(&self.host(name)?)
    }

    /// Values made on the host as an activation.
    pub fn upload(&self, values: &[f32]) -> Result<O::Act> {
        let mut act = O::Act::default();
        self.ops.upload(values, &mut act)?;
        Ok(act)
    }

    /// A matrix without bias, such as an embedding table.
    pub fn matrix(&self, name: &str) -> Result<O::Mat> {
        self.ops.matrix(&[flat(self.tensor(name)?)?])
    }

    /// `prefix.weight` and `prefix.bias` of a linear layer; also a convolution whose kernel covers its stride, whose
    /// inputs are then in the order `(c, y, x)`.
    pub fn linear(&self, prefix: &str) -> Result<Linear<O>> {
        self.stacked("", &[prefix])
    }

    /// The linear layers `prefix + name` of one input, as one.
    pub fn stacked(&self, prefix: &str, names: &[&str]) -> Result<Linear<O>> {
        let mut parts = Vec::new();
        let mut bias = Vec::new();
        for name in names {
            parts.push(flat(self.tensor(&format!("{prefix}{name}.weight"))?)?);
            bias.extend(self.host(&format!("{prefix}{name}.bias"))?);
        }
        let k = parts[0].shape()[1];
        Ok(Linear { w: self.ops.matrix(&parts)?, n: bias.len(), k, b: Some(self.upload(&bias)?) })
    }

    /// `prefix.weight` alone.
    pub fn linear_no_bias(&self, prefix: &str) -> Result<Linear<O>> {
        let w = flat(self.tensor(&format!("{prefix}.weight"))?)?;
        let (n, k) = (w.shape()[0], w.shape()[1]);
        Ok(Linear { w: self.ops.matrix(&[w])?, b: None, n, k })
    }

    /// A 3×3 convolution `[n, c, 3, 3]`, re-ordered to `[n, (3, 3, c)]`.
    pub fn conv3x3(&self, prefix: &str) -> Result<Linear<O>> {
        let name = format!("{prefix}.weight");
        let w = self.tensor(&name)?;
        let (n, c) = (w.shape()[0], w.shape()[1]);
        let from = w.to_f32();
        let mut to = vec![0.0; from.len()];
        for (row, out) in from.chunks_exact(c * 9).zip(to.chunks_exact_mut(c * 9)) {
            for tap in 0..9 {
                for ch in 0..c {
                    out[tap * c + ch] = row[ch * 9 + tap];
                }
            }
        }
        let w = self.ops.matrix(&[HostTensor::from_f32(&name, &[n, 9 * c], to)?])?;
        Ok(Linear { w, b: Some(self.act(&format!("{prefix}.bias"))?), n, k: 9 * c })
    }

    /// A 2×2 transposed convolution `[cin, cout, 2, 2]`, re-ordered to `[(2, 2, cout), cin]`, its bias repeated.
    pub fn deconv2x2(&self, prefix: &str) -> Result<Linear<O>> {
        let name = format!("{prefix}.weight");
        let w = self.tensor(&name)?;
        let (cin, cout) = (w.shape()[0], w.shape()[1]);
        let from = w.to_f32();
        let mut to = vec![0.0; from.len()];
        for ci in 0..cin {
            for co in 0..cout {
                for tap in 0..4 {
                    to[(tap * cout + co) * cin + ci] = from[(ci * cout + co) * 4 + tap];
                }
            }
        }
        let w = self.ops.matrix(&[HostTensor::from_f32(&name, &[4 * cout, cin], to)?])?;
        let bias = self.host(&format!("{prefix}.bias"))?.repeat(4);
        Ok(Linear { w, b: Some(self.upload(&bias)?), n: 4 * cout, k: cin })
    }

    /// `prefix.weight` and `prefix.bias` of a norm.
    pub fn norm(&self, prefix: &str, eps: f32) -> Result<Norm<O>> {
        let gamma = self.host(&format!("{prefix}.weight"))?;
        let beta = self.act(&format!("{prefix}.bias"))?;
        Ok(Norm { width: gamma.len(), gamma: self.upload(&gamma)?, beta, eps })
    }
}

/// A weight of any rank as `[outputs, inputs]`.
fn flat(w: HostTensor) -> Result<HostTensor> {
    let n = w.shape()[0];
    let k = w.shape()[1..].iter().product();
    w.reshaped(&[n, k])
}
