//! Cases, their inputs, and their comparison.
//!
//! Each case runs three times on an implementation: with empty outputs, with outputs that are longer than needed and
//! hold NaN, and with two threads. The first two must agree in every bit (an operation has no memory and no race); the
//! third must meet the tolerance too, and the summary says whether it was identical.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sam3::Result;
use sam3::ops::{Linear, Norm, Ops, View};
use sam3::reference::ReferenceOps;
use sam3::weights::{Dtype, HostTensor};

/// Spacing of f32 at 1, twice the rounding error.
pub const EPS: f64 = f32::EPSILON as f64;

/// `|found - expected| ≤ abs + rel·|expected|`; zero where the arithmetic is exact.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub abs: f64,
    pub rel: f64,
}

impl Tolerance {
    /// Not one bit (but for the sign of a zero).
    pub const EXACT: Self = Self { abs: 0.0, rel: 0.0 };

    /// Of an inner product of `k` terms in f32, in any order, fused or not.
    ///
    /// The certain bound is `γ_k·Σ|aᵢbᵢ| ≈ k·u·k·max|a|·max|b|` (Higham, *Accuracy and Stability*, 3.1, `u = EPS/2`),
    /// which no sum of random signs comes near: its partial sums are around `√j·max|a|·max|b|/3`, each rounded once, and
    /// the roundings are as good as independent (Higham and Mary, *SIAM J. Sci. Comput.* 41, 2019), so that the error's
    /// standard deviation is `u·√(Σ j)/3 = 0.24·k·u·max|a|·max|b|`. `(k + 1)·EPS` is eight of them.
    pub fn inner(k: usize, a: f64, b: f64) -> Self {
        Self { abs: EPS * (k as f64 + 1.0) * a * b, rel: EPS }
    }
}

thread_local! {
    static HALF: Cell<bool> = const { Cell::new(false) };
}

/// What rounding to bf16 moves a number by at most, relatively: half the spacing at 1, which is 2⁻⁷ since the significand
/// has 8 bits with the one that is not stored.
pub const HALF_ROUNDING: f64 = 1.0 / 256.0;

/// Whether the cases of this thread are in bf16: inputs rounded to it beforehand, so that rounding an operand changes
/// nothing and a product's tolerance stays that of its sums, and stored in it where `Rows::operand` says so.
pub fn in_half() -> bool {
    HALF.get()
}

/// Makes the cases of this thread such.
pub fn use_half() {
    HALF.set(true);
}

/// `x`, rounded where the cases are in bf16.
fn input(x: f32) -> f32 {
    if in_half() { half::bf16::from_f32(x).to_f32() } else { x }
}

/// One call with its inputs.
pub trait Case {
    /// Name of the operation.
    fn op(&self) -> &'static str;
    /// Everything needed to find the case again.
    fn shape(&self) -> String;
    /// Lengths of the outputs.
    fn outputs(&self) -> Vec<usize>;
    /// The call. `y` holds as many buffers as `outputs` names.
    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()>;
    /// How far an element may be from the reference's.
    fn tolerance(&self) -> Tolerance;
}

#[derive(Default)]
struct Stats {
    cases: usize,
    failed: usize,
    differ_by_threads: usize,
    /// Largest error in units of its tolerance.
    worst: f64,
}

/// Runs cases on one implementation and keeps what went wrong.
pub struct Suite<O> {
    name: String,
    one: O,
    two: O,
    stats: BTreeMap<&'static str, Stats>,
    failures: Vec<String>,
    /// The last case's outputs were buffers for operands.
    operands: bool,
}

impl<O: Ops> Suite<O> {
    /// A suite for the implementation `name`, with one thread and with two.
    pub fn new(name: &str, one: O, two: O) -> Self {
        Self { name: name.to_string(), one, two, stats: BTreeMap::new(), failures: Vec::new(), operands: false }
    }

    /// Runs a case.
    pub fn check<C: Case>(&mut self, case: &C) {
        self.operands = in_half() && !self.operands;
        let operands = self.operands;
        let output = |ops: &O, case: &C, dirty| output(ops, case, dirty, operands);
        let expected = self::output(&ReferenceOps, case, false, false).expect("the reference runs");
        for (i, &x) in expected.iter().flatten().enumerate() {
            assert!(x.is_finite(), "{} {}: the case expects {x} at {i}", case.op(), case.shape());
        }
        let found = output(&self.one, case, false);
        let again = output(&self.one, case, true);
        let threaded = output(&self.two, case, false);

        let stats = self.stats.entry(case.op()).or_default();
        // Without an element there is nothing to be wrong, only a panic to be had.
        stats.cases += usize::from(expected.iter().any(|y| !y.is_empty()));
        let mut tolerance = case.tolerance();
        if in_half() {
            // Outputs of every second case are stored in bf16.
            tolerance.rel += HALF_ROUNDING;
        }
        let mut faults = Vec::new();
        for (what, found) in [("", &found), (" with 2 threads", &threaded)] {
            match found {
                Ok(found) => {
                    let (worst, fault) = compare(&expected, found, tolerance);
                    stats.worst = stats.worst.max(worst);
                    faults.extend(fault.map(|fault| format!("{fault}{what}")));
                }
                Err(e) => faults.push(format!("{e}{what}")),
            }
        }
        if let (Ok(found), Ok(again)) = (&found, &again)
            && bits(found) != bits(again)
        {
            faults.push("a second run, into longer outputs that held NaN, gave other bits".to_string());
        }
        if let (Ok(found), Ok(threaded)) = (&found, &threaded)
            && bits(found) != bits(threaded)
        {
            stats.differ_by_threads += 1;
        }
        if !faults.is_empty() {
            stats.failed += 1;
        }
        for fault in faults {
            self.failures.push(format!("{}: {} {}: {fault}", self.name, case.op(), case.shape()));
        }
    }

    /// Operations that had cases.
    pub fn operations(&self) -> impl Iterator<Item = &'static str> {
        self.stats.keys().copied()
    }

    /// Cases of an operation that have output.
    pub fn cases_of(&self, op: &str) -> usize {
        self.stats.get(op).map_or(0, |s| s.cases)
    }

    /// Cases of an operation that failed.
    pub fn failures_of(&self, op: &str) -> usize {
        self.stats.get(op).map_or(0, |s| s.failed)
    }

    /// Prints the summary and panics with the failures, if there are any.
    pub fn finish(self) {
        for (op, s) in &self.stats {
            let threads = match s.differ_by_threads {
                0 => "identical with 2 threads".to_string(),
                n => format!("{n} differ with 2 threads"),
            };
            println!("{}: {op}: {} cases, worst {:.3} of the tolerance, {threads}", self.name, s.cases, s.worst);
        }
        const SHOWN: usize = 25;
        let count = self.failures.len();
        let shown = self.failures[..count.min(SHOWN)].join("\n");
        assert!(count == 0, "{count} failures, of which the first {}:\n{shown}", count.min(SHOWN));
    }
}

/// Runs a case; a panic becomes an error, so that the report can name the case.
fn output<O: Ops, C: Case>(ops: &O, case: &C, dirty: bool, operands: bool) -> Result<Vec<Vec<f32>>, String> {
    let call = || -> Result<Vec<Vec<f32>>> {
        let lens = case.outputs();
        let new = || if operands { O::operand() } else { O::Act::default() };
        let mut y: Vec<O::Act> = lens.iter().map(|_| new()).collect();
        if dirty {
            for (y, len) in y.iter_mut().zip(&lens) {
                ops.upload(&vec![f32::NAN; len + 37], y)?;
            }
        }
        case.run(ops, &mut y)?;
        let mut values: Vec<Vec<f32>> = lens.iter().map(|&len| vec![0.0; len]).collect();
        for (y, values) in y.iter().zip(&mut values) {
            ops.download(y, 0, values)?;
        }
        Ok(values)
    };
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| format!("error {e}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message");
            Err(format!("panic {text}"))
        }
    }
}

/// The largest error in units of the tolerance, and its description where it is larger than one.
fn compare(expected: &[Vec<f32>], found: &[Vec<f32>], tolerance: Tolerance) -> (f64, Option<String>) {
    let mut worst = (0.0, None);
    for (o, (expected, found)) in expected.iter().zip(found).enumerate() {
        for (i, (&e, &f)) in expected.iter().zip(found).enumerate() {
            let (e, f) = (f64::from(e), f64::from(f));
            let allowed = tolerance.abs + tolerance.rel * e.abs();
            let error = (f - e).abs();
            let ratio = match error {
                0.0 => 0.0,
                x if x.is_nan() => f64::INFINITY,
                x => x / allowed,
            };
            if ratio > worst.0 {
                let text = format!("output {o} at {i}: expected {e:e}, found {f:e}, tolerance {allowed:e}");
                worst = (ratio, (ratio > 1.0).then_some(text));
            }
        }
    }
    worst
}

fn bits(values: &[Vec<f32>]) -> Vec<u32> {
    values.iter().flatten().map(|x| x.to_bits()).collect()
}

/// SplitMix64 (Steele, Lea and Flood, 2014); a case is found again by its seed.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// `0 .. n`
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// One of `items`.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Uniform in -1..1.
    pub fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// A whole number in -4..=4: sums of up to 2²⁰ of their products are exact in f32, in any order.
    pub fn whole(&mut self) -> f32 {
        self.below(9) as f32 - 4.0
    }
}

/// Every remainder of tiles up to 32, and the neighbours of larger ones.
pub fn sizes() -> Vec<usize> {
    let around = [48, 64, 96, 128].into_iter().flat_map(|n| [n - 1, n, n + 1]);
    (1..=33).chain(around).collect()
}

/// Rows of an activation within a buffer, at an offset and a stride. What lies between is NaN, and the buffer ends with
/// the last row.
#[derive(Clone)]
pub struct Rows {
    pub rows: usize,
    pub width: usize,
    offset: usize,
    stride: usize,
    buffer: Vec<f32>,
}

impl Rows {
    /// From the buffer's start, without gaps.
    pub fn packed(rows: usize, width: usize, value: impl FnMut() -> f32) -> Self {
        Self::at(rows, width, 0, width, value)
    }

    /// With an offset and gaps where `rng` says so.
    pub fn loose(rng: &mut Rng, rows: usize, width: usize, value: fn(&mut Rng) -> f32) -> Self {
        let offset = rng.pick(&[0, 0, 1, 7, 16, 33]);
        let gap = rng.pick(&[0, 0, 1, 8, 13]);
        Self::at(rows, width, offset, width + gap, || value(rng))
    }

    /// At a given place.
    pub fn at(rows: usize, width: usize, offset: usize, stride: usize, mut value: impl FnMut() -> f32) -> Self {
        let len = if rows == 0 { offset } else { offset + (rows - 1) * stride + width };
        let mut buffer = vec![f32::NAN; len];
        for r in 0..rows {
            buffer[offset + r * stride..][..width].fill_with(&mut value);
        }
        Self { rows, width, offset, stride, buffer }
    }

    pub fn upload<O: Ops>(&self, ops: &O) -> Result<O::Act> {
        let mut act = O::Act::default();
        let values: Vec<f32> = self.buffer.iter().map(|&x| input(x)).collect();
        ops.upload(&values, &mut act)?;
        Ok(act)
    }

    /// As what an operation made for a product, where the cases are in bf16 and the offset is even; otherwise as
    /// [`Self::upload`].
    pub fn operand<O: Ops>(&self, ops: &O) -> Result<O::Act> {
        let x = self.upload(ops)?;
        if !in_half() || self.offset % 2 == 1 {
            return Ok(x);
        }
        let (mut act, len) = (O::operand(), self.buffer.len());
        ops.copy(View::new(&x, len), 1, len, &mut act, 0)?;
        Ok(act)
    }

    pub fn view<'a, A>(&self, buf: &'a A) -> View<'a, A> {
        View { buf, offset: self.offset, stride: self.stride }
    }

    pub fn row(&self, r: usize) -> &[f32] {
        &self.buffer[self.offset + r * self.stride..][..self.width]
    }

    /// Multiplies every element.
    pub fn scale(&mut self, factor: f32) {
        self.buffer.iter_mut().for_each(|x| *x *= factor);
    }

    /// Adds to every element.
    pub fn shift(&mut self, by: f32) {
        self.buffer.iter_mut().for_each(|x| *x += by);
    }

    /// Largest magnitude.
    pub fn max(&self) -> f64 {
        (0..self.rows).flat_map(|r| self.row(r)).fold(0.0, |max, x| max.max(f64::from(x.abs())))
    }

    /// `rows×width` and, where it is not the whole buffer, `@offset/stride`.
    pub fn text(&self) -> String {
        let place = (self.offset, self.stride);
        let at = if place == (0, self.width) { String::new() } else { format!("@{}/{}", place.0, place.1) };
        format!("{}×{}{at}", self.rows, self.width)
    }
}

/// A weight matrix and its bias, stored as a checkpoint may store them.
pub struct Weight {
    pub n: usize,
    pub k: usize,
    parts: Vec<HostTensor>,
    bias: Option<Vec<f32>>,
    text: String,
}

impl Weight {
    /// `[n, k]` in `count` parts, all of `dtype`, or of all types in turn.
    pub fn new(
        rng: &mut Rng,
        [n, k]: [usize; 2],
        dtype: Option<Dtype>,
        count: usize,
        bias: bool,
        value: fn(&mut Rng) -> f32,
    ) -> Self {
        const ALL: [Dtype; 3] = [Dtype::Bf16, Dtype::F32, Dtype::F16];
        let count = count.clamp(1, n);
        let mut parts = Vec::new();
        let mut rest = n;
        for p in 0..count {
            let left = count - p - 1;
            let rows = if left == 0 { rest } else { 1 + rng.below(rest - left) };
            rest -= rows;
            let values: Vec<f32> = (0..rows * k).map(|_| value(rng)).collect();
            parts.push(stored(dtype.unwrap_or(ALL[p % 3]), &[rows, k], &values));
        }
        let shapes: Vec<_> = parts.iter().map(|p| format!("{:?}{:?}", p.dtype(), p.shape())).collect();
        let bias = bias.then(|| (0..n).map(|_| value(rng)).collect());
        let text = format!("{}{}", shapes.join("+"), if bias.is_some() { " bias" } else { "" });
        Self { n, k, parts, bias, text }
    }

    pub fn layer<O: Ops>(&self, ops: &O) -> Result<Linear<O>> {
        let b = self.bias.as_ref().map(|b| {
            let mut act = O::Act::default();
            ops.upload(b, &mut act).map(|()| act)
        });
        Ok(Linear { w: ops.matrix(&self.parts)?, b: b.transpose()?, n: self.n, k: self.k })
    }

    pub fn matrix<O: Ops>(&self, ops: &O) -> Result<O::Mat> {
        ops.matrix(&self.parts)
    }

    /// Largest magnitude of the matrix.
    pub fn max(&self) -> f64 {
        self.parts.iter().flat_map(HostTensor::to_f32).fold(0.0, |max, x| max.max(f64::from(x.abs())))
    }

    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A tensor of `dtype`, rounded to it.
fn stored(dtype: Dtype, shape: &[usize], values: &[f32]) -> HostTensor {
    let bytes: Vec<u8> = match dtype {
        Dtype::F32 => values.iter().flat_map(|&x| input(x).to_le_bytes()).collect(),
        // Rounded twice, so that neither type has more bits than the other.
        Dtype::F16 => values.iter().flat_map(|&x| half::f16::from_f32(input(x)).to_le_bytes()).collect(),
        Dtype::Bf16 => values.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect(),
    };
    HostTensor::from_bytes("test.weight", shape, dtype, bytes).unwrap()
}

/// Scale and shift for `width` channels.
pub struct Affine {
    pub gamma: Rows,
    pub beta: Rows,
    pub eps: f32,
}

impl Affine {
    pub fn new(rng: &mut Rng, width: usize, eps: f32) -> Self {
        let gamma = Rows::packed(1, width, || rng.signed());
        Self { gamma, beta: Rows::packed(1, width, || rng.signed()), eps }
    }

    pub fn norm<O: Ops>(&self, ops: &O) -> Result<Norm<O>> {
        Ok(Norm {
            gamma: self.gamma.upload(ops)?,
            beta: self.beta.upload(ops)?,
            eps: self.eps,
            width: self.gamma.width,
        })
    }
}
