//! Embedding, distances and refinement of the decoder's boxes.

use sam3::Result;
use sam3::ops::Ops;

use super::harness::{Case, EPS, Rng, Rows, Suite, Tolerance};

/// Boxes as the decoder has them: cxcywh within 0..1, the ends included.
fn boxes(rng: &mut Rng, n: usize) -> Rows {
    Rows::packed(n, 4, || match rng.below(16) {
        0 => 0.0,
        1 => 1.0,
        2 => 1e-4,
        _ => rng.signed().abs(),
    })
}

struct Sine {
    boxes: Rows,
    features: usize,
}

impl Case for Sine {
    fn op(&self) -> &'static str {
        "box_sine"
    }

    fn shape(&self) -> String {
        format!("{} boxes, {} features", self.boxes.rows, self.features)
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.boxes.rows * 4 * self.features]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let boxes = self.boxes.upload(ops)?;
        ops.box_sine(&boxes, self.boxes.rows, self.features, &mut y[0])
    }

    /// The angle is within 2π and takes the constant, the power (whose exponent of up to 13.3 bits makes a rounding ten
    /// times as large), a product and a quotient: some 8 roundings of 2π where the power is 1, fewer where it is larger and
    /// the angle smaller. Sine and cosine are no steeper than 1 and round to ulps of 1.
    fn tolerance(&self) -> Tolerance {
        Tolerance { abs: EPS * (4.0 * std::f64::consts::TAU + 2.0), rel: 0.0 }
    }
}

struct Deltas {
    boxes: Rows,
    height: usize,
    width: usize,
}

impl Case for Deltas {
    fn op(&self) -> &'static str {
        "box_deltas"
    }

    fn shape(&self) -> String {
        format!("{} boxes, {}×{}", self.boxes.rows, self.height, self.width)
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.boxes.rows * self.width * 2, self.boxes.rows * self.height * 2]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let boxes = self.boxes.upload(ops)?;
        let [dx, dy] = y else { unreachable!("two outputs") };
        ops.box_deltas(&boxes, self.boxes.rows, self.height, self.width, dx, dy)
    }

    /// An edge, a grid line and their distance are within 1.5 and round once each: `3·EPS`. The logarithm's slope is
    /// largest at 0, where it is `8 / (ln 2·log₂ 8) = 3.85`; its argument `|8d| + 1` rounds relatively by `EPS/2`, which
    /// moves it by `EPS / (2·ln 2·3)`, and its own ulps and the division are relative.
    fn tolerance(&self) -> Tolerance {
        Tolerance { abs: EPS * (3.0 * 3.85 + 0.25), rel: 4.0 * EPS }
    }
}

struct Refine {
    delta: Rows,
    boxes: Rows,
}

impl Case for Refine {
    fn op(&self) -> &'static str {
        "box_refine"
    }

    fn shape(&self) -> String {
        format!("{} boxes, deltas within {:.1}", self.boxes.rows, self.delta.max())
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.boxes.rows * 4]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let (delta, boxes) = (self.delta.upload(ops)?, self.boxes.upload(ops)?);
        ops.box_refine(&delta, &boxes, self.boxes.rows, &mut y[0])
    }

    /// `ln(x / (1 - x))` is within `±ln 1000 = ±6.9`: two roundings of its argument move it by `EPS`, its own ulps and the
    /// sum with `delta` by `EPS` of their magnitude. The slope of σ is at most 1/4, and σ rounds as a quotient with an
    /// exponential, a few ulps; where σ is small, an error of the exponent is a relative one.
    fn tolerance(&self) -> Tolerance {
        let exponent = EPS * (2.0 + 2.0 * (7.0 + self.delta.max()));
        Tolerance { abs: exponent / 4.0, rel: 4.0 * EPS }
    }
}

pub fn all<O: Ops>(suite: &mut Suite<O>) {
    let rng = &mut Rng::new(8);
    for n in (1..=17).chain([31, 32, 33, 200]) {
        for features in [1, 2, 3, 4, 6, 8, 16, 31, 64, 128] {
            suite.check(&Sine { boxes: boxes(rng, n), features });
        }
        for [height, width] in [[1, 1], [1, 7], [5, 3], [8, 16], [17, 9], [72, 72]] {
            suite.check(&Deltas { boxes: boxes(rng, n), height, width });
        }
        for spread in [1.0, 10.0, 60.0] {
            let mut delta = Rows::packed(n, 4, || rng.signed());
            delta.scale(spread);
            suite.check(&Refine { delta, boxes: boxes(rng, n) });
        }
    }
}
