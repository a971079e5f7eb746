//! How maps of logits become masks at another size, and the definition that all back ends owe every bit.

use crate::image::Taps;

/// What of a map is compared with the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Its values, resized.
    Values,
    /// `1 / (1 + e⁻ˣ)` of its values, resized.
    Sigmoid,
}

impl Compared {
    /// A sample by the definition: with the library's `exp`.
    pub fn exact(self, x: f32) -> f32 {
        match self {
            Self::Values => x,
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        }
    }
}

/// Maps to masks of bits.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Rows and columns of a map.
    pub from: [usize; 2],
    /// Rows and columns of a mask.
    pub to: [usize; 2],
    /// What of a map is compared.
    pub compared: Compared,
    /// What a pixel must exceed.
    pub threshold: f32,
}

impl Cut {
    /// More than a blend of four σ from an approximate `exp` differs from the definition's, so that only pixels this
    /// close to the threshold might be decided differently.
    ///
    /// Of an `exp` within 2 ulps beside one within 1, `3.6·10⁻⁷` of it, σ keeps `σ·(1 - σ)`, a quarter at most:
    /// `0.9·10⁻⁷`. Its sum and its quotient round by `2⁻²⁴` each, on both sides: `2.4·10⁻⁷`. A blend of numbers up to 1
    /// rounds its products by `2⁻²⁴` together and its sum by as much, at each of two steps and on both sides:
    /// `4.8·10⁻⁷`. Together `8.1·10⁻⁷`.
    pub const CLOSE: f32 = 1e-6;

    /// Words in a row of a mask.
    pub fn line(&self) -> usize {
        self.to[1].div_ceil(64)
    }

    /// Where pixels lie between samples, down and across.
    pub(crate) fn taps(&self) -> [Taps; 2] {
        [0, 1].map(|axis| Taps::new(self.from[axis], self.to[axis]))
    }

    /// Whether pixel `(x, y)` is in the mask, by the definition: samples that `sample` has of their index, blended in f32
    /// across first and then down, without fused operations.
    pub(crate) fn decide(&self, [down, across]: &[Taps; 2], x: usize, y: usize, sample: impl Fn(usize) -> f32) -> bool {
        let row = |row: u32| {
            let at = |column: u32| sample(row as usize * self.from[1] + column as usize);
            across.blend(x, at(across.near[x]), at(across.far[x]))
        };
        down.blend(y, row(down.near[y]), row(down.far[y])) > self.threshold
    }
}
