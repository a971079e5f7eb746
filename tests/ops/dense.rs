//! Matrix products and convolutions.
//!
//! Half of the cases have whole numbers, whose sums f32 holds exactly in any order: an element read from the wrong place
//! shows whatever its size. The others have random fractions and test the arithmetic.

use sam3::Result;
use sam3::ops::{Activation, Epilogue, Ops, Turn};
use sam3::weights::Dtype;

use super::harness::{Case, EPS, Rng, Rows, Suite, Tolerance, Weight, sizes};

const ACTS: [Activation; 3] = [Activation::None, Activation::Gelu, Activation::Relu];
const DTYPES: [Option<Dtype>; 4] = [Some(Dtype::F32), Some(Dtype::F16), Some(Dtype::Bf16), None];

/// Whole numbers or fractions.
fn values(exact: bool) -> fn(&mut Rng) -> f32 {
    if exact { Rng::whole } else { Rng::signed }
}

/// What comes after a product: `act(acc + bias + add)`.
///
/// Bias and addend cost a rounding each, of a value no larger than the result and the other one. GELU multiplies an
/// error by at most 1.13, its steepest slope; its own is that of `1 + erf`, two ulps of 1, times `x/2`, and matters up to
/// `|x| = 6`, beyond which it is `x` or 0 to f32.
fn epilogue(sum: Tolerance, act: Activation, added: f64) -> Tolerance {
    let sum = Tolerance { abs: sum.abs + EPS * added, rel: sum.rel + EPS };
    match act {
        Activation::None | Activation::Relu => sum,
        Activation::Gelu => Tolerance { abs: 1.13 * sum.abs + 12.0 * EPS, rel: 1.13 * sum.rel + 4.0 * EPS },
    }
}

struct Product {
    x: Rows,
    w: Weight,
    add: Option<Rows>,
    act: Activation,
    /// Angles, and how many columns turn.
    turn: Option<(Rows, usize)>,
    exact: bool,
}

impl Product {
    fn new(
        rng: &mut Rng,
        [m, n, k]: [usize; 3],
        (dtype, parts): (Option<Dtype>, usize),
        (bias, add, act): (bool, bool, Activation),
        exact: bool,
    ) -> Self {
        let value = values(exact);
        let x = Rows::loose(rng, m, k, value);
        let w = Weight::new(rng, [n, k], dtype, parts, bias, value);
        let add = add.then(|| Rows::loose(rng, m, n, value));
        Self { x, w, add, act, turn: None, exact }
    }
}

impl Product {
    /// The same with its first `columns` columns turned in heads of `head_dim`: by any angles, or, where sums are exact,
    /// by whole numbers in place of sines and cosines, so that the turn is exact too.
    fn turned(self, rng: &mut Rng, head_dim: usize, columns: usize) -> Self {
        let mut sine = None;
        let exact = self.exact;
        let angles = Rows::packed(self.x.rows, head_dim, || {
            if exact {
                return rng.whole();
            }
            // A cosine, then its sine.
            sine.take().unwrap_or_else(|| {
                let (sin, cos) = (4.0 * rng.signed()).sin_cos();
                sine = Some(sin);
                cos
            })
        });
        Self { turn: Some((angles, columns)), ..self }
    }
}

impl Case for Product {
    fn op(&self) -> &'static str {
        "linear"
    }

    fn shape(&self) -> String {
        let add = self.add.as_ref().map_or("none".to_string(), Rows::text);
        let turn = self.turn.as_ref().map_or(String::new(), |(angles, columns)| {
            format!(", {columns} columns turn in heads of {}", angles.width)
        });
        format!("x {}, w {}, add {add}, {:?}{turn}, exact {}", self.x.text(), self.w.text(), self.act, self.exact)
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.x.rows * self.w.n]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let x = self.x.operand(ops)?;
        let add = self.add.as_ref().map(|add| add.operand(ops)).transpose()?;
        let add = self.add.as_ref().zip(add.as_ref()).map(|(rows, act)| rows.view(act));
        let angles = self.turn.as_ref().map(|(angles, _)| angles.upload(ops)).transpose()?;
        let turn = self.turn.as_ref().zip(angles.as_ref());
        let turn = turn.map(|((rows, columns), angles)| Turn { angles, head_dim: rows.width, columns: *columns });
        let ep = Epilogue { add, act: self.act, turn };
        ops.linear(self.x.view(&x), &self.w.layer(ops)?, self.x.rows, ep, &mut y[0])
    }

    fn tolerance(&self) -> Tolerance {
        if self.exact && self.act != Activation::Gelu {
            return Tolerance::EXACT;
        }
        let sum = if self.exact { Tolerance::EXACT } else { Tolerance::inner(self.w.k, self.x.max(), self.w.max()) };
        let all = epilogue(sum, self.act, 1.0 + self.add.as_ref().map_or(0.0, Rows::max));
        let Some((angles, _)) = &self.turn else { return all };
        // An element and its partner, each off by what is above and multiplied by one of the angles' numbers: together
        // 2·max times that. Both products and their sum are rounded, of values as large as the sum of k products, the
        // bias and the addend. What the relative tolerance is of may be nearly 0 after the turn.
        let (k, terms) = (self.w.k as f64, self.x.max() * self.w.max());
        let most = k * terms + self.w.max() + self.add.as_ref().map_or(0.0, Rows::max);
        let abs = all.abs + all.rel * most;
        Tolerance { abs: 2.0 * angles.max() * (abs + 2.0 * EPS * most), rel: EPS }
    }
}

struct Dot {
    a: Rows,
    b: Rows,
    exact: bool,
}

impl Case for Dot {
    fn op(&self) -> &'static str {
        "dot"
    }

    fn shape(&self) -> String {
        format!("a {}, b {}, exact {}", self.a.text(), self.b.text(), self.exact)
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.a.rows * self.b.rows]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let (a, b) = (self.a.operand(ops)?, self.b.operand(ops)?);
        ops.dot(self.a.view(&a), self.a.rows, self.b.view(&b), self.b.rows, self.a.width, &mut y[0])
    }

    fn tolerance(&self) -> Tolerance {
        if self.exact { Tolerance::EXACT } else { Tolerance::inner(self.a.width, self.a.max(), self.b.max()) }
    }
}

/// A convolution: 3×3 or, transposed, 2×2.
struct Convolution {
    h: usize,
    w: usize,
    x: Rows,
    l: Weight,
    /// Epilogue of the transposed one.
    transposed: Option<(Option<Rows>, Activation)>,
    exact: bool,
}

impl Convolution {
    fn same(rng: &mut Rng, [h, w]: [usize; 2], [cin, cout]: [usize; 2], exact: bool) -> Self {
        let x = Rows::packed(h * w, cin, || values(exact)(rng));
        let (dtype, parts, bias) = (rng.pick(&DTYPES), 1 + rng.below(2), rng.below(3) > 0);
        let l = Weight::new(rng, [cout, 9 * cin], dtype, parts, bias, values(exact));
        Self { h, w, x, l, transposed: None, exact }
    }

    fn transposed(
        rng: &mut Rng,
        [h, w]: [usize; 2],
        [cin, cout]: [usize; 2],
        (add, act): (bool, Activation),
        exact: bool,
    ) -> Self {
        let x = Rows::packed(h * w, cin, || values(exact)(rng));
        let (dtype, parts, bias) = (rng.pick(&DTYPES), 1 + rng.below(2), rng.below(3) > 0);
        let l = Weight::new(rng, [4 * cout, cin], dtype, parts, bias, values(exact));
        let add = add.then(|| Rows::loose(rng, 4 * h * w, cout, values(exact)));
        Self { h, w, x, l, transposed: Some((add, act)), exact }
    }
}

impl Case for Convolution {
    fn op(&self) -> &'static str {
        if self.transposed.is_some() { "deconv2x2" } else { "conv3x3" }
    }

    fn shape(&self) -> String {
        let add = match &self.transposed {
            Some((add, act)) => format!(", add {}, {act:?}", add.as_ref().map_or("none".to_string(), Rows::text)),
            None => String::new(),
        };
        format!("{}×{}, x {}, w {}{add}, exact {}", self.h, self.w, self.x.text(), self.l.text(), self.exact)
    }

    fn outputs(&self) -> Vec<usize> {
        // The transposed one has four times the pixels, and four times the rows in its matrix.
        vec![self.h * self.w * self.l.n]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let x = self.x.operand(ops)?;
        let l = self.l.layer(ops)?;
        let Some((rows, act)) = &self.transposed else {
            return ops.conv3x3(&x, &l, self.h, self.w, &mut y[0]);
        };
        let add = rows.as_ref().map(|add| add.operand(ops)).transpose()?;
        let add = rows.as_ref().zip(add.as_ref()).map(|(rows, act)| rows.view(act));
        ops.deconv2x2(&x, &l, self.h, self.w, Epilogue { add, act: *act, turn: None }, &mut y[0])
    }

    fn tolerance(&self) -> Tolerance {
        let act = self.transposed.as_ref().map_or(Activation::None, |(_, act)| *act);
        if self.exact && act != Activation::Gelu {
            return Tolerance::EXACT;
        }
        let sum = if self.exact { Tolerance::EXACT } else { Tolerance::inner(self.l.k, self.x.max(), self.l.max()) };
        let add = self.transposed.as_ref().and_then(|(add, _)| add.as_ref()).map_or(0.0, Rows::max);
        epilogue(sum, act, 1.0 + add)
    }
}

pub fn all<O: Ops>(suite: &mut Suite<O>) {
    products(suite);
    dots(suite);
    convolutions(suite);
}

fn products<O: Ops>(suite: &mut Suite<O>) {
    let rng = &mut Rng::new(1);
    // All epilogues by all ways of storing, at sizes that are multiples of nothing: few rows, which a GEMM may treat on
    // their own, and many.
    for act in ACTS {
        for (bias, add) in [(false, false), (false, true), (true, false), (true, true)] {
            for dtype in DTYPES {
                for parts in [1, 3] {
                    for exact in [true, false] {
                        for shape in [[7, 37, 19], [61, 53, 45]] {
                            suite.check(&Product::new(rng, shape, (dtype, parts), (bias, add, act), exact));
                        }
                    }
                }
            }
        }
    }
    // Each dimension through all sizes, the others drawn.
    let sizes = sizes();
    for axis in 0..3 {
        for &size in &sizes {
            for exact in [true, false] {
                let mut shape = [rng.pick(&sizes), rng.pick(&sizes), rng.pick(&sizes)];
                shape[axis] = size;
                let store = (rng.pick(&DTYPES), 1 + rng.below(3));
                let ep = (rng.below(2) == 0, rng.below(2) == 0, rng.pick(&ACTS));
                suite.check(&Product::new(rng, shape, store, ep, exact));
            }
        }
    }
    suite.check(&Product::new(rng, [0, 5, 3], (None, 1), (true, true, Activation::Gelu), true));
    // Inner dimensions around the blocks that a GEMM cuts k into.
    for k in [255, 256, 257, 511, 512, 513, 1023, 1025] {
        for m in [13, 39] {
            suite.check(&Product::new(rng, [m, 17, k], (Some(Dtype::Bf16), 1), (true, true, Activation::None), true));
        }
    }
    // And outputs beyond the block of columns it packs at once.
    for n in [4863, 4865, 5001] {
        suite.check(&Product::new(rng, [26, n, 5], (None, 3), (true, true, Activation::Relu), true));
    }
    // Rows without gaps, whose starts are aligned: around tiles of 192 × 256 × 64 that a copy engine fills.
    for (m, n, k) in [
        (1, 2, 8),
        (63, 256, 64),
        (64, 254, 72),
        (65, 258, 56),
        (191, 64, 320),
        (192, 256, 256),
        (193, 514, 136),
        (385, 10, 64),
        (577, 256, 264),
        (3, 1024, 520),
        (33, 130, 1096),
    ] {
        for exact in [true, false] {
            let ep = (true, rng.below(2) == 0, rng.pick(&ACTS));
            let x = Rows::packed(m, k, || values(exact)(rng));
            let case = Product::new(rng, [m, n, k], (Some(Dtype::Bf16), 1), ep, exact);
            suite.check(&Product { x, ..case });
        }
    }
    // Turns: heads of all remainders of a tile, of which some, all or none of the columns turn, by all epilogues; few
    // rows, which a GEMM may treat on their own, and many.
    for head_dim in [2, 4, 6, 10, 16, 24, 32, 64, 80] {
        for exact in [true, false] {
            for m in [7, 61, 130] {
                let (turned, others) = (rng.below(4), rng.below(130));
                let n = turned * head_dim + others.max(1);
                let ep = (rng.below(2) == 0, rng.below(2) == 0, rng.pick(&ACTS));
                let store = (rng.pick(&DTYPES), 1 + rng.below(3));
                let case = Product::new(rng, [m, n, 19], store, ep, exact);
                suite.check(&case.turned(rng, head_dim, turned * head_dim));
            }
        }
    }
    // As a projection to queries, keys and values has them, around tiles that a copy engine fills.
    for (m, heads, k, exact) in [(65, 1, 72, true), (193, 2, 64, true), (385, 3, 136, false)] {
        // Queries and keys turn, or, so that a pair of heads is parted, queries alone.
        for (ep, turned) in [((true, false, Activation::None), 2 * heads), ((true, true, Activation::Relu), heads)] {
            let x = Rows::packed(m, k, || values(exact)(rng));
            let case = Product::new(rng, [m, 3 * heads * 64, k], (Some(Dtype::Bf16), 3), ep, exact);
            suite.check(&Product { x, ..case }.turned(rng, 64, turned * 64));
        }
    }
    // Layers of the published model; rows of a picture only where the matrix is small.
    for (m, n, k, act) in [
        (5, 1024, 588, Activation::None),
        (9, 3072, 1024, Activation::None),
        (6, 4736, 1024, Activation::Gelu),
        (6, 1024, 4736, Activation::None),
        (201, 2048, 256, Activation::Relu),
        (201, 256, 2048, Activation::None),
        (32, 256, 1024, Activation::None),
        (5184, 32, 256, Activation::None),
    ] {
        let add = act == Activation::None;
        let case = Product::new(rng, [m, n, k], (Some(Dtype::Bf16), 1), (true, add, act), false);
        // Queries and keys, two thirds of the columns, turn.
        suite.check(&if n == 3 * k { case.turned(rng, 64, 2 * k) } else { case });
    }
}

fn dots<O: Ops>(suite: &mut Suite<O>) {
    let rng = &mut Rng::new(2);
    let mut dot = |rng: &mut Rng, [m, n, k]: [usize; 3], exact| {
        let a = Rows::loose(rng, m, k, values(exact));
        let b = Rows::loose(rng, n, k, values(exact));
        suite.check(&Dot { a, b, exact });
    };
    let sizes = sizes();
    for axis in 0..3 {
        for &size in &sizes {
            for exact in [true, false] {
                let mut shape = [rng.pick(&sizes), rng.pick(&sizes), rng.pick(&sizes)];
                shape[axis] = size;
                dot(rng, shape, exact);
            }
        }
    }
    dot(rng, [0, 3, 5], true);
    dot(rng, [3, 0, 5], true);
    // Mask embeddings by pixels, of two rows of the published model's mask; queries by the pooled text.
    dot(rng, [200, 2 * 288, 256], false);
    dot(rng, [201, 1, 256], false);
}

fn convolutions<O: Ops>(suite: &mut Suite<O>) {
    let rng = &mut Rng::new(3);
    // Pictures that are all border, and such that have an inside.
    let pictures = [[1, 1], [1, 2], [2, 1], [1, 5], [2, 2], [3, 3], [4, 5], [7, 3], [5, 16], [9, 17]];
    let channels = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33];
    for hw in pictures {
        for exact in [true, false] {
            for _ in 0..4 {
                let c = [rng.pick(&channels), rng.pick(&channels)];
                suite.check(&Convolution::same(rng, hw, c, exact));
            }
            for act in ACTS {
                for add in [false, true] {
                    let c = [rng.pick(&channels), rng.pick(&channels)];
                    suite.check(&Convolution::transposed(rng, hw, c, (add, act), exact));
                }
            }
        }
    }
    for &c in &channels {
        for exact in [true, false] {
            let other = rng.pick(&channels);
            suite.check(&Convolution::same(rng, [3, 4], [c, other], exact));
            suite.check(&Convolution::same(rng, [3, 4], [other, c], exact));
            suite.check(&Convolution::transposed(rng, [3, 2], [c, other], (false, Activation::None), exact));
            suite.check(&Convolution::transposed(rng, [3, 2], [other, c], (true, Activation::Gelu), exact));
        }
    }
    // Channels that a step of k holds whole, on pictures that tiles of 8 × 24 pixels hang over.
    for hw in [[3, 5], [9, 30], [8, 48]] {
        suite.check(&Convolution::same(rng, hw, [64, 20], true));
        suite.check(&Convolution::same(rng, hw, [128, 260], true));
    }
    // Pyramid and pixel decoder, on a corner of their pictures.
    suite.check(&Convolution::same(rng, [5, 72], [256, 64], false));
    suite.check(&Convolution::transposed(rng, [2, 72], [1024, 128], (false, Activation::Gelu), false));
    suite.check(&Convolution::transposed(rng, [3, 24], [256, 64], (true, Activation::None), false));
}
