//! Whether a device computes what it should, told in a few milliseconds when it is opened: what multiplies, attends and
//! normalises, on small seeded inputs, beside another back end.
//!
//! Each operation runs twice: as on a device of as many multiprocessors as there are, which gives inputs this small to the
//! kernels for few rows and splits keys among blocks; and as on a device of one, for which no kernel's tile is too large,
//! Hopper's included.

use super::{CudaOps, Precision};
use crate::error::{Error, ErrorKind, Result};
use crate::ops::{Activation, Attention, Epilogue, Linear, Norm, Ops, Padding, Pattern, Turn, View};
use crate::weights::HostTensor;

/// Most that an element may be off, in units of the root of the mean square of its operation's results.
///
/// Inputs are numbers that bf16 has, so all products are exact; a sum of `k ≤ 640` of them, of random signs, is off by
/// `k·2⁻²⁴/4` of a term where the results are `√k/3`: by 1.1·10⁻⁶ of those in the mean, and matrix units that cut instead
/// of round, at every 8 terms, by ten times that at most. This is some eleven times that again.
const SUMS: f64 = 1.0 / 8192.0;

/// As [`SUMS`], of an attention in bf16.
///
/// A probability is rounded, which moves it by `2⁻⁸/√3·0.74 = 1.7·10⁻³` of itself in the mean square. Errors of the terms
/// of an average are independent, as its terms are: as much of the results. This is nine of them.
const ATTENTION: f64 = 1.0 / 64.0;

/// Most results of an operation.
const MOST: usize = 193 * 192;

/// An operation's name and its results.
type Answer = (&'static str, Vec<f32>);

/// Runs every operation on `ops` and on `expected`.
///
/// # Errors
///
/// `Device` if results are not the same within what rounding explains; what the operations return.
pub fn check(ops: &mut CudaOps, expected: &impl Ops) -> Result<()> {
    let expected = answers(expected)?;
    let processors = ops.processors;
    let found = answers(ops)?;
    ops.processors = 1;
    let large = answers(ops);
    ops.processors = processors;
    for found in [found, large?] {
        expected.iter().zip(&found).try_for_each(|(e, f)| compare(ops.precision, e, f))?;
    }
    Ok(())
}

fn compare(precision: Precision, (op, expected): &Answer, (_, found): &Answer) -> Result<()> {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let size = (expected.iter().map(|&v| square(v)).sum::<f64>() / expected.len() as f64).sqrt();
    let errors = expected.iter().zip(found).map(|(&e, &f)| (f64::from(f) - f64::from(e)).abs() / size);
    // NaN is the largest of all.
    let worst = errors.max_by(f64::total_cmp).unwrap_or(0.0).abs();
    let bound = if op.ends_with("attention") && precision == Precision::Bf16 { ATTENTION } else { SUMS };
    if worst <= bound {
        return Ok(());
    }
    let message = format!(
        "self-check of {op}: expected the CPU's results within {bound:.1e} of their size, found {worst:.1e}: this GPU \
         does not compute what it should; use the CPU, and please report the GPU and its driver"
    );
    Err(Error::new(ErrorKind::Device, message))
}

/// Inputs, the same for every back end.
struct Inputs<'a, O> {
    ops: &'a O,
    state: u64,
}

impl<O: Ops> Inputs<'_, O> {
    /// Evenly spread in -1..1, rounded to bf16; from a linear congruential generator.
    fn values(&mut self, n: usize) -> Vec<f32> {
        let mut next = || {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            half::bf16::from_f32((self.state >> 40) as f32 / (1u64 << 23) as f32 - 1.0).to_f32()
        };
        (0..n).map(|_| next()).collect()
    }

    fn floats(&mut self, n: usize) -> Result<O::Act> {
        let mut act = O::Act::default();
        self.ops.upload(&self.values(n), &mut act)?;
        Ok(act)
    }

    fn operand(&mut self, n: usize) -> Result<O::Act> {
        let mut act = O::operand();
        self.ops.copy(View::new(&self.floats(n)?, n), 1, n, &mut act, 0)?;
        Ok(act)
    }

    fn layer(&mut self, n: usize, k: usize) -> Result<Linear<O>> {
        let w = self.ops.matrix(&[HostTensor::from_f32("check", &[n, k], self.values(n * k))?])?;
        Ok(Linear { w, b: Some(self.floats(n)?), n, k })
    }

    fn norm(&mut self, width: usize) -> Result<Norm<O>> {
        Ok(Norm { gamma: self.floats(width)?, beta: self.floats(width)?, eps: 1e-5, width })
    }

    /// Turns by a third of the row for each pair of `d` columns, less and less.
    fn angles(&mut self, rows: usize, d: usize) -> Result<O::Act> {
        let angle = |i: usize| (i / (d / 2)) as f32 / (3 + i % (d / 2)) as f32;
        let values: Vec<f32> = (0..rows * d / 2).flat_map(|i| [angle(i).cos(), angle(i).sin()]).collect();
        let mut act = O::Act::default();
        self.ops.upload(&values, &mut act)?;
        Ok(act)
    }

    /// An attention of rows of queries, keys and values beside each other.
    fn attend(&mut self, spec: &Attention<'_, O::Act>, y: &mut O::Act) -> Result<()> {
        let width = spec.heads * spec.head_dim;
        let qkv = self.operand(spec.queries.max(spec.keys) * 3 * width)?;
        let [q, k, v] = [0, 1, 2].map(|i| View::columns(&qkv, i * width, 3 * width));
        self.ops.attention(q, k, v, spec, y)
    }
}

/// Every operation's results. Sizes are such that tiles of all kernels hang over, steps have a remainder, and no kernel
/// is refused: heads of 64, channels in multiples of 64, rows of multiples of 16 bytes.
fn answers<O: Ops>(ops: &O) -> Result<Vec<Answer>> {
    let (mut i, mut y, mut all) = (Inputs { ops, state: 3 }, O::Act::default(), Vec::new());
    // One place for all results, so that each finds another's there, never its own of the round before, as memory that was
    // given back may hold.
    ops.upload(&vec![f32::NAN; MOST], &mut y)?;
    let mut keep = |name, y: &O::Act, n: usize| -> Result<()> {
        assert!(n <= MOST, "{name} has {n} results");
        let mut values = vec![0.0; n];
        ops.download(y, 0, &mut values)?;
        all.push((name, values));
        Ok(())
    };

    let (m, n, k) = (193, 40, 72);
    let (x, add) = (i.operand(m * k)?, i.floats(m * n)?);
    let ep = Epilogue { act: Activation::Relu, ..Epilogue::add(View::new(&add, n)) };
    ops.linear(View::new(&x, k), &i.layer(n, k)?, m, ep, &mut y)?;
    keep("a product", &y, m * n)?;
    // So deep that blocks share its steps.
    let (m_few, k_few) = (3, 640);
    let few = i.operand(m_few * k_few)?;
    ops.linear(View::new(&few, k_few), &i.layer(n, k_few)?, m_few, Epilogue::act(Activation::Gelu), &mut y)?;
    keep("a product of few rows", &y, m_few * n)?;
    let (n, d) = (3 * 64, 64);
    let angles = i.angles(m, d)?;
    let ep = Epilogue::turn(Turn { angles: &angles, head_dim: d, columns: 2 * d });
    ops.linear(View::new(&x, k), &i.layer(n, k)?, m, ep, &mut y)?;
    keep("a turned product", &y, m * n)?;

    let (a, b) = (i.operand(3 * k)?, i.operand(70 * k)?);
    ops.dot(View::new(&a, k), 3, View::new(&b, k), 70, k, &mut y)?;
    keep("a product of activations", &y, 3 * 70)?;

    let (h, w, c, n) = (5, 20, 64, 24);
    let x = i.operand(h * w * c)?;
    ops.conv3x3(&x, &i.layer(n, 9 * c)?, h, w, &mut y)?;
    keep("a convolution", &y, h * w * n)?;
    ops.deconv2x2(&x, &i.layer(4 * n, c)?, h, w, Epilogue::act(Activation::Relu), &mut y)?;
    keep("a transposed convolution", &y, 4 * h * w * n)?;

    let (heads, d, t) = (2, 64, 100);
    i.attend(&Attention::full(heads, d, t, t), &mut y)?;
    keep("an attention", &y, t * heads * d)?;
    i.attend(&Attention { pattern: Pattern::Causal, ..Attention::full(heads, d, t, t) }, &mut y)?;
    keep("a causal attention", &y, t * heads * d)?;
    let (height, width, size) = (3, 5, 4);
    let (t, pads) = (height * width, i.floats((size * size + 1) * heads * d)?);
    let padding = Padding { k: View::new(&pads, heads * d), v: View::skip(&pads, size * size, heads * d) };
    let pattern = Pattern::Windows { height, width, size, padding: Some(padding) };
    i.attend(&Attention { pattern, ..Attention::full(heads, d, t, t) }, &mut y)?;
    keep("a padded windowed attention", &y, t * heads * d)?;
    let (height, width, size) = (12, 24, 12);
    let t = height * width;
    let pattern = Pattern::Windows { height, width, size, padding: None };
    i.attend(&Attention { pattern, ..Attention::full(heads, d, t, t) }, &mut y)?;
    keep("a windowed attention", &y, t * heads * d)?;
    // Keys for five steps, which are split.
    let (d, queries, first, height, width) = (32, 5, 1, 17, 17);
    let (by, bx) = (i.floats((queries - first) * height * heads)?, i.floats((queries - first) * width * heads)?);
    let pattern = Pattern::Boxes { height, width, first, by: &by, bx: &bx };
    i.attend(&Attention { pattern, ..Attention::full(heads, d, queries, height * width) }, &mut y)?;
    keep("a biased attention", &y, queries * heads * d)?;

    let (rows, width) = (9, 264);
    let x = i.floats(rows * width)?;
    ops.layer_norm(View::new(&x, width), &i.norm(width)?, rows, Activation::None, &mut y)?;
    keep("a layer norm", &y, rows * width)?;
    ops.group_norm(&x, &i.norm(width)?, 8, rows, Activation::Relu, &mut y)?;
    keep("a group norm", &y, rows * width)?;
    Ok(all)
}
