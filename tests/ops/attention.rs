//! Attention: all patterns, head widths from 2 to 80, heads as columns of one fused buffer or of three.

use sam3::Result;
use sam3::ops::{Attention, Epilogue, Linear, Ops, Padding, Pattern, Projected};
use sam3::reference::ReferenceOps;

use super::harness::{Case, EPS, HALF_ROUNDING, Rng, Rows, Suite, Tolerance, Weight, in_half, sizes};

/// [`Pattern`] with its inputs on the host.
enum Seen {
    Full,
    Causal,
    /// With the keys and the value of padding, where there is any.
    Windows {
        height: usize,
        width: usize,
        size: usize,
        padding: Option<[Rows; 2]>,
    },
    Boxes {
        height: usize,
        width: usize,
        first: usize,
        by: Rows,
        bx: Rows,
    },
}

struct Attend {
    heads: usize,
    head_dim: usize,
    q: Rows,
    k: Rows,
    v: Rows,
    seen: Seen,
}

impl Attend {
    /// Queries, keys and values in buffers of their own; `spread` is the largest query, hence how sharp the softmax.
    fn new(rng: &mut Rng, [heads, head_dim]: [usize; 2], [queries, keys]: [usize; 2], spread: f32, seen: Seen) -> Self {
        let width = heads * head_dim;
        let mut q = Rows::loose(rng, queries, width, Rng::signed);
        q.scale(spread);
        let [k, v] = [0; 2].map(|_| Rows::loose(rng, keys, width, Rng::signed));
        Self { heads, head_dim, q, k, v, seen }
    }

    /// Windows over a grid.
    fn windows(rng: &mut Rng, shape: [usize; 2], [height, width, size]: [usize; 3]) -> Self {
        let (columns, over) = (shape[0] * shape[1], height % size != 0 || width % size != 0);
        let padding = over.then(|| [size * size, 1].map(|rows| Rows::loose(rng, rows, columns, Rng::signed)));
        let seen = Seen::Windows { height, width, size, padding };
        Self::new(rng, shape, [height * width; 2], 4.0, seen)
    }

    /// As rows of columns of one buffer, the way a fused projection leaves them.
    fn fused(mut self, rng: &mut Rng) -> Self {
        let (tokens, width) = (self.q.rows, self.heads * self.head_dim);
        for (part, rows) in [&mut self.q, &mut self.k, &mut self.v].into_iter().enumerate() {
            *rows = Rows::at(tokens, width, part * width, 3 * width, || rng.signed());
        }
        self
    }

    /// A bias of a box for all queries but the `first`.
    fn boxes(rng: &mut Rng, shape: [usize; 2], queries: usize, [height, width]: [usize; 2], first: usize) -> Self {
        let mut bias = |side| {
            let mut rows = Rows::packed(queries - first, side * shape[0], || rng.signed());
            rows.scale(3.0);
            rows
        };
        let (by, bx) = (bias(height), bias(width));
        let seen = Seen::Boxes { height, width, first, by, bx };
        Self::new(rng, shape, [queries, height * width], 2.0, seen)
    }
}

impl Case for Attend {
    fn op(&self) -> &'static str {
        "attention"
    }

    fn shape(&self) -> String {
        let seen = match &self.seen {
            Seen::Full => "full".to_string(),
            Seen::Causal => "causal".to_string(),
            Seen::Windows { height, width, size, padding } => {
                let padding =
                    padding.as_ref().map_or("none".to_string(), |[k, v]| format!("{} {}", k.text(), v.text()));
                format!("windows {size} of {height}×{width}, padding {padding}")
            }
            Seen::Boxes { height, width, first, .. } => format!("boxes from {first} on {height}×{width}"),
        };
        let [q, k, v] = [&self.q, &self.k, &self.v].map(Rows::text);
        format!("{}×{}, q {q}, k {k}, v {v}, {seen}", self.heads, self.head_dim)
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.q.rows * self.q.width]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let (q, k, v) = (self.q.operand(ops)?, self.k.operand(ops)?, self.v.operand(ops)?);
        let (a, b) = match &self.seen {
            Seen::Windows { padding: Some([a, b]), .. } | Seen::Boxes { by: a, bx: b, .. } => {
                (a.upload(ops)?, b.upload(ops)?)
            }
            Seen::Full | Seen::Causal | Seen::Windows { .. } => Default::default(),
        };
        let pattern = match self.seen {
            Seen::Full => Pattern::Full,
            Seen::Causal => Pattern::Causal,
            Seen::Windows { height, width, size, ref padding } => {
                let padding = padding.as_ref().map(|[k, v]| Padding { k: k.view(&a), v: v.view(&b) });
                Pattern::Windows { height, width, size, padding }
            }
            Seen::Boxes { height, width, first, .. } => Pattern::Boxes { height, width, first, by: &a, bx: &b },
        };
        let full = Attention::full(self.heads, self.head_dim, self.q.rows, self.k.rows);
        let spec = Attention { pattern, ..full };
        ops.attention(self.q.view(&q), self.k.view(&k), self.v.view(&v), &spec, &mut y[0])
    }

    /// From the error of a score to that of the output.
    ///
    /// A score is an inner product of `d` terms times `scale`, with the bias `B` added: its error is that of the product,
    /// one rounding for the scale and one or two for the bias. The softmax takes the exponential of the score minus
    /// the largest one: another rounding of a value within twice the largest score. Together
    /// `σ = 3·EPS·((d + 1)·max|q|·max|k|·scale + B)`.
    ///
    /// An absolute error of the exponent is a relative error of the exponential, to which its own few ulps come; the same
    /// holds for the sum of exponentials, so a probability is off by `2·(σ + 4·EPS)` relatively. Probabilities sum to 1,
    /// so the output is off by that times `max|v|`, plus the roundings of the weighted sum, which behave as `√keys`
    /// (Higham and Mary, as in `Tolerance::inner`).
    fn tolerance(&self) -> Tolerance {
        let (mut k, mut v, mut bias) = (self.k.max(), self.v.max(), 0.0);
        let mut keys = self.k.rows;
        match &self.seen {
            Seen::Full | Seen::Causal => {}
            Seen::Windows { padding, size, .. } => {
                if let Some([pad_k, pad_v]) = padding {
                    (k, v) = (k.max(pad_k.max()), v.max(pad_v.max()));
                }
                keys = size * size;
            }
            Seen::Boxes { by, bx, .. } => bias = by.max() + bx.max(),
        }
        let d = self.head_dim as f64;
        let score = 3.0 * EPS * ((d + 1.0) * self.q.max() * k / d.sqrt() + bias);
        let mut probability = 2.0 * (score + 4.0 * EPS);
        if in_half() {
            // Probabilities are rounded.
            probability += HALF_ROUNDING;
        }
        Tolerance { abs: (probability + EPS * (2.0 * (keys as f64).sqrt() + 4.0)) * v, rel: 0.0 }
    }
}

/// Rows that are projected, rows that are added to those, or both.
struct Side {
    from: Option<(Rows, Weight)>,
    add: Option<Rows>,
}

impl Side {
    /// Rows of `width` heads together; `inputs` of 0 for rows that are there already.
    fn new(rng: &mut Rng, [rows, width, inputs]: [usize; 3], add: bool) -> Self {
        let from = (inputs > 0).then(|| {
            let x = Rows::loose(rng, rows, inputs, Rng::signed);
            // A tenth: products of a hundred inputs are then about 1, as they are behind a norm.
            let bias = rng.below(2) == 1;
            (x, Weight::new(rng, [width, inputs], None, 1 + rows % 3, bias, |rng| 0.1 * rng.signed()))
        });
        let add = (add || inputs == 0).then(|| Rows::loose(rng, rows, width, Rng::signed));
        Self { from, add }
    }

    fn upload<O: Ops>(&self, ops: &O) -> Result<Uploaded<O>> {
        let from = self.from.as_ref().map(|(x, w)| Ok((x.upload(ops)?, w.layer(ops)?)));
        Ok(Uploaded { from: from.transpose()?, add: self.add.as_ref().map(|add| add.upload(ops)).transpose()? })
    }

    fn projected<'a, O: Ops>(&self, on: &'a Uploaded<O>) -> Projected<'a, O> {
        let from = self.from.as_ref().zip(on.from.as_ref());
        let add = self.add.as_ref().zip(on.add.as_ref());
        Projected { from: from.map(|((x, _), (at, l))| (x.view(at), l)), add: add.map(|(add, at)| add.view(at)) }
    }

    /// The largest of the rows, and a bound of how far from them f32 may be.
    fn most(&self) -> (f64, f64) {
        most(self.from.as_ref().map(|(x, w)| (x, w)), self.add.as_ref())
    }

    fn text(&self) -> String {
        let from = self.from.as_ref().map(|(x, w)| format!("{} by {}", x.text(), w.text()));
        let add = self.add.as_ref().map(|add| format!("+ {}", add.text()));
        from.into_iter().chain(add).collect::<Vec<_>>().join(" ")
    }
}

struct Uploaded<O: Ops> {
    from: Option<(O::Act, Linear<O>)>,
    add: Option<O::Act>,
}

/// As [`Side::most`].
fn most(from: Option<(&Rows, &Weight)>, add: Option<&Rows>) -> (f64, f64) {
    let Some((x, w)) = from else { return (add.map_or(0.0, Rows::max), 0.0) };
    let (ops, mut y) = (ReferenceOps, Default::default());
    let (at, layer) = (x.upload(&ops).unwrap(), w.layer(&ops).unwrap());
    ops.linear(x.view(&at), &layer, x.rows, Epilogue::NONE, &mut y).unwrap();
    let mut made = vec![0.0; x.rows * w.n];
    ops.download(&y, 0, &mut made).unwrap();
    let most = made.iter().fold(add.map_or(0.0, Rows::max), |most, x| most.max(f64::from(x.abs())));
    (most, Tolerance::inner(w.k, x.max(), w.max()).abs + 3.0 * EPS * most)
}

/// An attention with its projections.
struct Whole {
    heads: usize,
    head_dim: usize,
    queries: usize,
    keys: usize,
    q: Side,
    k: Side,
    /// None for values of the keys' rows.
    v: Option<Side>,
    v_weight: Option<Weight>,
    o: Weight,
    residual: Option<Rows>,
}

impl Whole {
    /// `inputs` are those of queries, keys and values, 0 for what is projected already.
    fn new(
        rng: &mut Rng,
        [heads, head_dim]: [usize; 2],
        [queries, keys]: [usize; 2],
        inputs: [usize; 3],
        add: [bool; 2],
        outputs: usize,
    ) -> Self {
        let width = heads * head_dim;
        let q = Side::new(rng, [queries, width, inputs[0]], add[0]);
        let k = Side::new(rng, [keys, width, inputs[1]], add[1]);
        // Values usually come of the rows that keys come of.
        let shared = inputs[1] > 0 && inputs[1] == inputs[2];
        let scaled: fn(&mut Rng) -> f32 = |rng| 0.1 * rng.signed();
        let v_weight = shared.then(|| Weight::new(rng, [width, inputs[2]], None, 2, true, scaled));
        let v = (!shared).then(|| Side::new(rng, [keys, width, inputs[2]], false));
        let bias = rng.below(2) == 1;
        let o = Weight::new(rng, [outputs, width], None, 3, bias, scaled);
        let residual = (rng.below(2) == 1).then(|| Rows::loose(rng, queries, outputs, Rng::signed));
        Self { heads, head_dim, queries, keys, q, k, v, v_weight, o, residual }
    }
}

impl Case for Whole {
    fn op(&self) -> &'static str {
        "attend"
    }

    fn shape(&self) -> String {
        let Self { heads, head_dim, queries, keys, q, k, v, o, residual, .. } = self;
        let v = v.as_ref().map_or("of the keys' rows".to_string(), Side::text);
        let residual = residual.as_ref().map_or("none".to_string(), Rows::text);
        let (q, k, o) = (q.text(), k.text(), o.text());
        format!("{queries} to {keys}, {heads}×{head_dim}, q {q}, k {k}, v {v}, o {o}, residual {residual}")
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.queries * self.o.n]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let (q, k, o) = (self.q.upload(ops)?, self.k.upload(ops)?, self.o.layer(ops)?);
        let v = self.v.as_ref().map(|v| v.upload(ops)).transpose()?;
        let v_layer = self.v_weight.as_ref().map(|w| w.layer(ops)).transpose()?;
        let residual = self.residual.as_ref().map(|r| r.upload(ops)).transpose()?;
        let view = self.residual.as_ref().zip(residual.as_ref()).map(|(rows, act)| rows.view(act));
        let keys = self.k.projected(&k);
        let values = match (&self.v, &v, &v_layer) {
            (Some(side), Some(v), _) => side.projected(v),
            (_, _, Some(layer)) => Projected { from: keys.from.map(|(x, _)| (x, layer)), add: None },
            _ => unreachable!("values come from somewhere"),
        };
        let spec = Attention::full(self.heads, self.head_dim, self.queries, self.keys);
        let mut inner: [O::Act; 4] = Default::default();
        ops.attend([self.q.projected(&q), keys, values], &spec, &o, view, inner.each_mut(), &mut y[0])
    }

    /// As of an attention, where queries and keys come with an error of their own, which the score sums up like its
    /// terms; then as of a layer, whose inputs have the error of the attention.
    ///
    /// Whatever is multiplied first, what is multiplied are the same terms, and the inner products are as long or as short:
    /// that of a score by inputs instead of heads has `d` roundings of terms the size of whole projections instead of the
    /// heads' width, so `d` is added to it.
    fn tolerance(&self) -> Tolerance {
        let width = self.heads * self.head_dim;
        let (q, q_error) = self.q.most();
        let (k, k_error) = self.k.most();
        let (v, v_error) = match &self.v {
            Some(v) => v.most(),
            None => most(self.k.from.as_ref().map(|(x, _)| x).zip(self.v_weight.as_ref()), None),
        };
        let inputs = |side: &Side| side.from.as_ref().map_or(0, |(_, w)| w.k);
        let (dim, scale) = (self.head_dim as f64, (self.head_dim as f64).sqrt().recip());
        let terms = dim + (inputs(&self.q) + inputs(&self.k)) as f64;
        let score = EPS * (terms + 4.0) * q * k * scale + 3.0 * dim.sqrt() * scale * (q * k_error + k * q_error);
        let mut probability = 2.0 * (score + 4.0 * EPS);
        let (mut v_error, mut half) = (v_error, 0.0);
        if in_half() {
            // Projections, probabilities and the heads' outputs are rounded once each.
            half = HALF_ROUNDING;
            probability += half * (1.0 + 2.0 * 3.0 * dim.sqrt() * scale * 2.0 * q * k);
            v_error += half * v;
        }
        let heads = half * v + (probability + EPS * (2.0 * (self.keys as f64).sqrt() + 4.0)) * v + v_error;
        // Errors of the heads' outputs are as good as independent, see `Tolerance::inner`.
        let Tolerance { abs, rel } = Tolerance::inner(width, v, self.o.max());
        let residual = self.residual.as_ref().map_or(0.0, Rows::max);
        Tolerance { abs: abs + 3.0 * (width as f64).sqrt() * self.o.max() * heads + EPS * (residual + 0.1), rel }
    }
}

/// Head widths: every remainder of a vector of 4, 8 or 16, and those of the published model.
const WIDTHS: [usize; 22] = [2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 40, 48, 63, 64, 79, 80];

pub fn all<O: Ops>(suite: &mut Suite<O>) {
    let rng = &mut Rng::new(4);
    let sizes = sizes();
    // Each count of queries and of keys.
    for axis in 0..2 {
        for &size in &sizes {
            let mut shape = [rng.pick(&sizes), rng.pick(&sizes)];
            shape[axis] = size;
            let heads = [1 + rng.below(3), rng.pick(&WIDTHS)];
            suite.check(&Attend::new(rng, heads, shape, 3.0, Seen::Full));
        }
    }
    suite.check(&Attend::new(rng, [2, 8], [0, 5], 1.0, Seen::Full));
    for &size in &sizes {
        let heads = [1 + rng.below(3), rng.pick(&WIDTHS)];
        suite.check(&Attend::new(rng, heads, [size; 2], 3.0, Seen::Causal));
    }
    for d in WIDTHS {
        suite.check(&Attend::new(rng, [3, d], [11, 21], 3.0, Seen::Full));
        suite.check(&Attend::new(rng, [2, d], [19, 19], 3.0, Seen::Full));
        suite.check(&Attend::new(rng, [2, d], [18, 18], 3.0, Seen::Causal));
        suite.check(&Attend::windows(rng, [2, d], [4, 6, 2]));
        suite.check(&Attend::windows(rng, [2, d], [5, 4, 3]));
        suite.check(&Attend::boxes(rng, [2, d], 9, [3, 5], 1));
        suite.check(&Attend::boxes(rng, [3, d], 5, [4, 3], 0));
        suite.check(&Attend::new(rng, [2, d], [13, 13], 3.0, Seen::Full).fused(rng));
    }
    // Grids that windows fit, exceed by one in either or both directions, or cover whole; windows of one token.
    for size in [1, 2, 3, 4, 5, 8] {
        for [height, width] in [[8, 8], [9, 8], [8, 9], [7, 11], [1, 6], [6, 1], [3, 2], [5, 5]] {
            suite.check(&Attend::windows(rng, [2, 8], [height, width, size]));
        }
    }
    // Boxes on grids of all shapes; a presence token alone.
    for [height, width] in [[1, 1], [1, 7], [7, 1], [4, 8], [8, 4], [5, 17], [16, 16], [13, 10]] {
        for (queries, first) in [(1, 0), (1, 1), (2, 1), (8, 0), (17, 1)] {
            suite.check(&Attend::boxes(rng, [4, 8], queries, [height, width], first));
        }
    }
    // Queries and keys beyond the blocks that an implementation streams.
    for count in [193, 255, 256, 257, 300, 513] {
        suite.check(&Attend::new(rng, [2, 6], [count; 2], 3.0, Seen::Causal));
        suite.check(&Attend::new(rng, [1, 9], [31, count], 3.0, Seen::Full));
        suite.check(&Attend::new(rng, [1, 9], [count, 31], 3.0, Seen::Full));
        for first in [0, 1] {
            suite.check(&Attend::boxes(rng, [2, 5], count, [9, 11], first));
            suite.check(&Attend::boxes(rng, [2, 5], 101, [count / 16, 17], first));
        }
    }
    suite.check(&Attend::windows(rng, [2, 6], [19, 35, 17]));
    // Sharp softmax: scores of several hundred, most of whose exponentials vanish.
    for d in [8, 64] {
        suite.check(&Attend::new(rng, [2, d], [17, 130], 200.0, Seen::Full));
        suite.check(&Attend::new(rng, [2, d], [40, 40], 200.0, Seen::Causal));
    }
    // With projections. On either side as few rows as are multiplied first, up to as many as are not.
    for few in [1, 8, 33] {
        for (heads, d) in [([8, 16], 256), ([4, 16], 64), ([3, 9], 31), ([2, 40], 100)] {
            let many = rng.pick(&[96, 97, 193]);
            let outputs = rng.pick(&[1, 31, 64, 256]);
            for add in [[false, false], [true, true]] {
                suite.check(&Whole::new(rng, heads, [few, many], [d, d, d], add, outputs));
                suite.check(&Whole::new(rng, heads, [many, few], [d, d, d], add, outputs));
            }
            // Queries made before, keys and values made before, all of them; values of other rows.
            suite.check(&Whole::new(rng, heads, [many, few], [0, d, d], [false; 2], outputs));
            suite.check(&Whole::new(rng, heads, [many, few], [d, 0, 0], [true; 2], outputs));
            suite.check(&Whole::new(rng, heads, [few, many], [0, d, d], [false; 2], outputs));
            suite.check(&Whole::new(rng, heads, [few, many], [d, 0, 0], [false; 2], outputs));
            suite.check(&Whole::new(rng, heads, [few, many], [d, d, d / 2], [false; 2], outputs));
        }
    }
    for count in [1, 13, 95] {
        suite.check(&Whole::new(rng, [2, 8], [count, count], [16, 16, 16], [false, true], 16));
    }
    // Inputs deeper than what is multiplied first.
    suite.check(&Whole::new(rng, [8, 16], [3, 130], [300, 300, 300], [true, true], 300));
    suite.check(&Whole::new(rng, [8, 16], [130, 3], [300, 300, 300], [true, true], 300));
    // A click on the published model, whose many are more.
    suite.check(&Whole::new(rng, [8, 16], [8, 700], [256, 256, 256], [false, true], 256));
    suite.check(&Whole::new(rng, [8, 16], [700, 8], [256, 256, 256], [true, false], 256));
    // The published model: a window of the ViT, its padded border, global attention on fewer tokens, the text encoder,
    // the decoder's queries over the picture and the prompt, the fusion of picture and prompt.
    suite.check(&Attend::windows(rng, [2, 64], [24, 24, 24]).fused(rng));
    suite.check(&Attend::windows(rng, [1, 64], [26, 25, 24]));
    // Where a copy engine fetches heads of 64 from a fused projection: several windows in both directions, of sizes whose
    // rows do not fill a tile of queries; a tile of all tokens that hangs over.
    for [height, width, size] in [[24, 36, 12], [16, 16, 16]] {
        suite.check(&Attend::windows(rng, [2, 64], [height, width, size]).fused(rng));
    }
    suite.check(&Attend::new(rng, [2, 64], [193; 2], 3.0, Seen::Full).fused(rng));
    suite.check(&Attend::new(rng, [1, 64], [520, 520], 3.0, Seen::Full).fused(rng));
    suite.check(&Attend::new(rng, [16, 64], [32, 32], 3.0, Seen::Causal));
    suite.check(&Attend::boxes(rng, [8, 32], 7, [72, 72], 1));
    suite.check(&Attend::new(rng, [8, 32], [201, 33], 3.0, Seen::Full));
    suite.check(&Attend::new(rng, [8, 32], [700, 33], 3.0, Seen::Full));
}
