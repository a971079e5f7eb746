//! Layer and group norm.

use sam3::Result;
use sam3::ops::{Activation, Ops};

use super::harness::{Affine, Case, EPS, Rng, Rows, Suite, Tolerance, sizes};

const ACTS: [Activation; 3] = [Activation::None, Activation::Gelu, Activation::Relu];

struct Normalise {
    x: Rows,
    affine: Affine,
    /// `None` is a layer norm.
    groups: Option<usize>,
    act: Activation,
}

impl Normalise {
    /// Rows around `mean`.
    fn layer(rng: &mut Rng, rows: usize, width: usize, mean: f32, act: Activation) -> Self {
        let mut x = Rows::loose(rng, rows, width, Rng::signed);
        x.shift(mean);
        let affine = Affine::new(rng, width, upstream_eps(width));
        Self { x, affine, groups: None, act }
    }

    fn group(rng: &mut Rng, rows: usize, [groups, channels]: [usize; 2], mean: f32, act: Activation) -> Self {
        let width = groups * channels;
        let mut x = Rows::packed(rows, width, || rng.signed());
        x.shift(mean);
        let affine = Affine::new(rng, width, 1e-5);
        Self { x, affine, groups: Some(groups), act }
    }

    /// The sets that share a mean and a variance.
    fn sets(&self) -> Vec<Vec<f64>> {
        let widen = |x: &f32| f64::from(*x);
        match self.groups {
            None => (0..self.x.rows).map(|r| self.x.row(r).iter().map(widen).collect()).collect(),
            Some(groups) => {
                let c = self.x.width / groups;
                let set = |g| (0..self.x.rows).flat_map(move |r| self.x.row(r)[g * c..][..c].iter().map(widen));
                (0..groups).map(|g| set(g).collect()).collect()
            }
        }
    }
}

/// The two constants of the published model.
fn upstream_eps(width: usize) -> f32 {
    if width.is_multiple_of(2) { 1e-6 } else { 1e-5 }
}

impl Case for Normalise {
    fn op(&self) -> &'static str {
        if self.groups.is_some() { "group_norm" } else { "layer_norm" }
    }

    fn shape(&self) -> String {
        let groups = self.groups.map_or(String::new(), |groups| format!(", {groups} groups"));
        format!("x {}, max {:.1}{groups}, eps {:e}, {:?}", self.x.text(), self.x.max(), self.affine.eps, self.act)
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.x.rows * self.x.width]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let x = self.x.operand(ops)?;
        let norm = self.affine.norm(ops)?;
        match self.groups {
            None => ops.layer_norm(self.x.view(&x), &norm, self.x.rows, self.act, &mut y[0]),
            Some(groups) => ops.group_norm(&x, &norm, groups, self.x.rows, self.act, &mut y[0]),
        }
    }

    /// `z = (x - mean)·scale` with `scale = 1/√(var + eps)`.
    ///
    /// Mean and difference are right to a few roundings of `max|x|`, if sums are taken in parts or wider than f32; an error
    /// of `scale` is relative: half that of the variance, a mean of squares of such differences, so again a rounding of
    /// `max|x|` against the spread, times `z`. Hence `4·EPS·max|x|·scale·(1 + max|z|)·max|γ|` over the set where that is
    /// largest, and roundings of the affine part. Subtracting the squared mean from the mean of squares would lose
    /// `(max|x|·scale)²` and shows in the cases with a mean of 100.
    fn tolerance(&self) -> Tolerance {
        let mut worst: f64 = 0.0;
        for set in self.sets() {
            let n = set.len() as f64;
            let mean = set.iter().sum::<f64>() / n;
            let var = set.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let scale = 1.0 / (var + f64::from(self.affine.eps)).sqrt();
            let (max, z) = set
                .iter()
                .fold((0.0, 0.0), |(max, z): (f64, f64), x| (max.max(x.abs()), z.max((x - mean).abs() * scale)));
            worst = worst.max(max * scale * (1.0 + z));
        }
        let affine = EPS * (4.0 * worst * self.affine.gamma.max() + self.affine.beta.max());
        match self.act {
            Activation::None | Activation::Relu => Tolerance { abs: affine, rel: 2.0 * EPS },
            // As in the epilogue of a product.
            Activation::Gelu => Tolerance { abs: 1.13 * affine + 12.0 * EPS, rel: 6.0 * EPS },
        }
    }
}

pub fn all<O: Ops>(suite: &mut Suite<O>) {
    let rng = &mut Rng::new(5);
    for width in sizes() {
        for act in ACTS {
            let rows = 1 + rng.below(9);
            suite.check(&Normalise::layer(rng, rows, width, 0.0, act));
        }
        suite.check(&Normalise::layer(rng, 3, width, 100.0, Activation::None));
    }
    // Constant rows, whose variance is 0.
    let mut constant = Normalise::layer(rng, 4, 24, 0.0, Activation::None);
    constant.x.scale(0.0);
    constant.x.shift(0.5);
    suite.check(&constant);
    // The published model: ViT, everything behind it, the text encoder, upsampled masks.
    for (rows, width) in [(37, 1024), (201, 256), (32, 1024), (300, 64), (1000, 4)] {
        suite.check(&Normalise::layer(rng, rows, width, 0.0, Activation::None));
        suite.check(&Normalise::layer(rng, rows, width, -20.0, Activation::Gelu));
    }

    for groups in [1, 2, 3, 4, 8, 32] {
        for channels in [1, 2, 3, 4, 5, 7, 8, 9, 16, 17] {
            let act = rng.pick(&ACTS);
            let rows = rng.pick(&[1, 2, 3, 6, 17, 64, 100]);
            suite.check(&Normalise::group(rng, rows, [groups, channels], 0.0, act));
        }
    }
    // A level of the pixel decoder: 256 channels in 8 groups.
    suite.check(&Normalise::group(rng, 72 * 72, [8, 32], 0.0, Activation::Relu));
    suite.check(&Normalise::group(rng, 1000, [8, 32], 50.0, Activation::Relu));
}
