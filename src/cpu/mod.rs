//! The CPU back end: [`Ops`] over vector instructions and threads.
//!
//! Everything computes in f32 on activations in flat buffers; weights stay as they are stored and are widened as they
//! are read. Each operation checks its dimensions here, then hands slices to its file:
//!
//! - `simd`: vector instructions behind tokens; `isa`: which of them this processor has
//! - `pool`: scratch memory and loops over tasks, on the threads of `crew`
//! - `gemm`: dense products, by which `linear`, `dot` and the convolutions of `conv` are done
//! - `attention`, `norm`, `activation`: the rest of what takes time
//! - `rows`, `resample`, `roi`, `boxes`: what does not
//! - `bitmap`: masks at the picture's size

mod activation;
mod attention;
mod bitmap;
mod boxes;
mod conv;
#[allow(unsafe_code)]
mod crew;
mod gemm;
mod isa;
mod memory;
mod norm;
mod peak;
mod pool;
mod resample;
mod roi;
mod rows;
#[allow(unsafe_code)]
mod simd;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use isa::Isa;

use crate::error::Result;
use crate::image::{ImageView, resize};
use crate::ops::{Activation, Attention, Cut, Epilogue, Linear, Norm, Ops, Padding, Pattern, Projected, View, timed};
use crate::weights::HostTensor;
use attention::{Keys, Pad, Spec};
use gemm::{After, Columns, Rows, Stored, Strided, Turn};
use memory::Memory;
use pool::Pool;
pub use pool::physical_cores;

/// Activations on the CPU.
#[derive(Default)]
pub struct Buffer(Memory);

impl Buffer {
    /// The elements.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// Holds at least `len` elements, the ones before growth unchanged.
    fn grow(&mut self, len: usize) -> Result<()> {
        if self.0.len() < len {
            let mut memory = Memory::zeroed(len)?;
            memory[..self.0.len()].copy_from_slice(&self.0);
            self.0 = memory;
        }
        Ok(())
    }

    /// `len` elements to be written, all of them: what was there goes first, so that old and new are never there together.
    fn output(&mut self, len: usize) -> Result<&mut [f32]> {
        if self.0.len() < len {
            self.0 = Memory::default();
            self.0 = Memory::zeroed(len)?;
        }
        Ok(&mut self.0[..len])
    }
}

/// A weight matrix as it is stored: the tensors themselves, one or several stacked along the outputs.
pub struct Matrix {
    /// Each with the number of its first row, ascending.
    parts: Vec<(usize, HostTensor)>,
    n: usize,
    k: usize,
}

impl Columns for Matrix {
    fn column(&self, n: usize) -> Stored<'_> {
        let part = self.parts.partition_point(|&(first, _)| first <= n) - 1;
        let (first, tensor) = &self.parts[part];
        let row_bytes = self.k * size_of(tensor);
        Stored { dtype: tensor.dtype(), bytes: &tensor.bytes()[(n - first) * row_bytes..][..row_bytes] }
    }
}

/// Bytes of one element.
fn size_of(tensor: &HostTensor) -> usize {
    use crate::weights::Dtype::{Bf16, F16, F32};
    match tensor.dtype() {
        F32 => 4,
        F16 | Bf16 => 2,
    }
}

/// The CPU back end. Clones share threads and scratch memory; operations of several callers may overlap.
#[derive(Clone)]
pub struct CpuOps {
    pool: Arc<Pool>,
    isa: Isa,
}

impl CpuOps {
    /// A back end with threads of its own, its caller counting as one of them, by default one per physical core. They
    /// end with the last clone.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for zero threads, [`ErrorKind::OutOfMemory`] if they cannot be started.
    pub fn new(threads: Option<usize>, isa: Isa) -> Result<Self> {
        Ok(Self { pool: Arc::new(Pool::new(threads)?), isa })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// How many threads work.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Floating-point operations a second of this back end's threads and instruction set, measured on registers alone
    /// within some 20 ms: what benchmarks relate their figures to.
    pub fn peak_flops(&self) -> f64 {
        peak::peak_flops(&self.pool, self.isa)
    }

    /// The product of any rows with a layer's weights.
    fn layer(&self, x: &impl Rows, l: &Linear<Self>, m: usize, after: After<'_>, y: &mut Buffer) -> Result<()> {
        assert_eq!((l.w.n, l.w.k), (l.n, l.k), "a layer's matrix");
        let y = y.output(m * l.n)?;
        gemm::gemm(&self.pool, self.isa, x, &l.w, (m, l.n, l.k), after, y);
        Ok(())
    }
}

/// A view's rows.
fn strided<'a>(v: View<'a, Buffer>) -> Strided<'a> {
    Strided { data: &v.buf.0, offset: v.offset, stride: v.stride }
}

/// All rows of a contiguous buffer.
fn contiguous(x: &Buffer, width: usize) -> Strided<'_> {
    Strided { data: &x.0, offset: 0, stride: width }
}

/// What follows the sums of a layer with `m` rows.
fn after<'a>(l: &'a Linear<CpuOps>, m: usize, ep: Epilogue<'a, Buffer>) -> After<'a> {
    let turn = ep.turn.map(|turn| {
        turn.check(l.n);
        let crate::ops::Turn { angles, head_dim, columns } = turn;
        Turn { angles: &angles.0[..m * head_dim], head_dim, columns }
    });
    After { bias: l.b.as_ref().map(|b| &b.0[..l.n]), add: ep.add.map(strided), act: ep.act, turn }
}

/// The parameters of a norm.
fn parameters(norm: &Norm<CpuOps>, act: Activation) -> norm::Parameters<'_> {
    let width = norm.width;
    assert!(width > 0, "a norm over nothing");
    norm::Parameters { gamma: &norm.gamma.0[..width], beta: &norm.beta.0[..width], eps: norm.eps, act }
}

/// The first `n` boxes.
fn boxes_of(boxes: &Buffer, n: usize) -> &[[f32; 4]] {
    boxes.0[..4 * n].as_chunks().0
}

impl Ops for CpuOps {
    type Act = Buffer;
    type Mat = Matrix;
    type Clock = Duration;

    fn stage<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
        let _caller = self.pool.enter();
        timed(work)
    }

    fn elapsed(&self, clock: Duration) -> Result<Duration> {
        Ok(clock)
    }

    fn reserve(&self, act: &mut Buffer, len: usize) -> Result<()> {
        act.grow(len)
    }

    fn upload(&self, src: &[f32], dst: &mut Buffer) -> Result<()> {
        dst.output(src.len())?.copy_from_slice(src);
        Ok(())
    }

    fn download(&self, src: &Buffer, offset: usize, dst: &mut [f32]) -> Result<()> {
        dst.copy_from_slice(&src.0[offset..][..dst.len()]);
        Ok(())
    }

    fn matrix(&self, parts: &[HostTensor]) -> Result<Matrix> {
        let width = |t: &HostTensor| t.shape()[1..].iter().product::<usize>();
        let k = parts.first().map_or(0, width);
        let mut n = 0;
        let mut kept = Vec::with_capacity(parts.len());
        for tensor in parts {
            let rows = tensor.shape()[0];
            assert_eq!(width(tensor), k, "{}: the width of a stacked matrix", tensor.name());
            assert_eq!(tensor.bytes().len(), rows * k * size_of(tensor), "{}: bytes", tensor.name());
            if rows > 0 {
                kept.push((n, tensor.clone()));
            }
            n += rows;
        }
        Ok(Matrix { parts: kept, n, k })
    }

    fn linear(
        &self,
        x: View<'_, Buffer>,
        l: &Linear<Self>,
        m: usize,
        ep: Epilogue<'_, Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        self.layer(&strided(x), l, m, after(l, m, ep), y)
    }

    fn dot(
        &self,
        a: View<'_, Buffer>,
        m: usize,
        b: View<'_, Buffer>,
        n: usize,
        k: usize,
        y: &mut Buffer,
    ) -> Result<()> {
        let columns = gemm::Activations { rows: strided(b), width: k };
        let y = y.output(m * n)?;
        gemm::gemm(&self.pool, self.isa, &strided(a), &columns, (m, n, k), After::NOTHING, y);
        Ok(())
    }

    fn conv3x3(&self, x: &Buffer, l: &Linear<Self>, h: usize, w: usize, y: &mut Buffer) -> Result<()> {
        assert!(l.k.is_multiple_of(9), "a 3 x 3 kernel of {} weights", l.k);
        let rows = conv::Neighbours { x: &x.0, height: h, width: w, channels: l.k / 9 };
        self.layer(&rows, l, h * w, after(l, h * w, Epilogue::NONE), y)
    }

    fn deconv2x2(
        &self,
        x: &Buffer,
        l: &Linear<Self>,
        h: usize,
        w: usize,
        ep: Epilogue<'_, Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        assert_eq!((l.w.n, l.w.k), (l.n, l.k), "a layer's matrix");
        assert!(l.n.is_multiple_of(4), "a 2 x 2 kernel of {} outputs", l.n);
        assert!(ep.turn.is_none(), "a transposed convolution has no rotary turn");
        let y = y.output(h * w * l.n)?;
        let dims = (h, w, l.k, l.n / 4);
        conv::deconv2x2(&self.pool, self.isa, contiguous(x, l.k), &l.w, dims, after(l, h * w, ep), y);
        Ok(())
    }

    fn attention(
        &self,
        q: View<'_, Buffer>,
        k: View<'_, Buffer>,
        v: View<'_, Buffer>,
        spec: &Attention<'_, Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        let Attention { heads, head_dim, queries, keys, scale, .. } = *spec;
        let width = heads * head_dim;
        let pattern = match spec.pattern {
            Pattern::Full => Keys::Full,
            Pattern::Causal => {
                assert_eq!(queries, keys, "causal attention");
                Keys::Causal
            }
            Pattern::Windows { height, width: columns, size, padding } => {
                let padding = padding.map(|Padding { k, v }| Pad { k: strided(k), v: strided(v).row(0, width) });
                Keys::Windows { height, width: columns, size, padding }
            }
            Pattern::Boxes { height, width, first, by, bx } => {
                Keys::Boxes { height, width, first, by: &by.0, bx: &bx.0 }
            }
        };
        let (q, k, v) = (strided(q), strided(k), strided(v));
        let spec = Spec { q, k, v, heads, head_dim, queries, keys, scale, pattern };
        attention::attention(&self.pool, self.isa, spec, y.output(queries * width)?);
        Ok(())
    }

    fn attend(
        &self,
        qkv: [Projected<'_, Self>; 3],
        spec: &Attention<'_, Buffer>,
        o: &Linear<Self>,
        residual: Option<View<'_, Buffer>>,
        inner: [&mut Buffer; 4],
        y: &mut Buffer,
    ) -> Result<()> {
        attention::attend(self, qkv, spec, o, residual, inner, y)
    }

    fn layer_norm(
        &self,
        x: View<'_, Buffer>,
        norm: &Norm<Self>,
        rows: usize,
        act: Activation,
        y: &mut Buffer,
    ) -> Result<()> {
        let y = y.output(rows * norm.width)?;
        norm::layer_norm(&self.pool, self.isa, strided(x), parameters(norm, act), y);
        Ok(())
    }

    fn group_norm(
        &self,
        x: &Buffer,
        norm: &Norm<Self>,
        groups: usize,
        rows: usize,
        act: Activation,
        y: &mut Buffer,
    ) -> Result<()> {
        let len = rows * norm.width;
        let y = y.output(len)?;
        norm::group_norm(&self.pool, self.isa, &x.0[..len], groups, parameters(norm, act), y);
        Ok(())
    }

    fn add(
        &self,
        a: View<'_, Buffer>,
        b: View<'_, Buffer>,
        b_rows: usize,
        rows: usize,
        width: usize,
        y: &mut Buffer,
    ) -> Result<()> {
        let y = y.output(rows * width)?;
        rows::add(&self.pool, self.isa, strided(a), strided(b), b_rows, width, y);
        Ok(())
    }

    fn copy(&self, x: View<'_, Buffer>, rows: usize, width: usize, y: &mut Buffer, offset: usize) -> Result<()> {
        y.grow(offset + rows * width)?;
        let y = &mut y.0[offset..offset + rows * width];
        rows::copy(&self.pool, strided(x), width, y);
        Ok(())
    }

    fn gather(&self, table: &Matrix, ids: &[u32], y: &mut Buffer) -> Result<()> {
        rows::gather(table, ids, table.k, y.output(ids.len() * table.k)?);
        Ok(())
    }

    fn mean_rows(&self, x: View<'_, Buffer>, rows: usize, width: usize, y: &mut Buffer) -> Result<()> {
        rows::mean_rows(strided(x), rows, y.output(width)?);
        Ok(())
    }

    fn ingest(&self, picture: &ImageView<'_>, side: usize, y: &mut Buffer) -> Result<()> {
        resample::ingest(&self.pool, &resize(picture, side), y.output(side * side * 3)?);
        Ok(())
    }

    fn cut(&self, cut: &Cut, masks: &mut [(&[f32], &mut [u64])]) -> Result<()> {
        bitmap::cut(&self.pool, self.isa, cut, masks);
        Ok(())
    }

    fn patches(&self, x: &Buffer, h: usize, w: usize, c: usize, p: usize, y: &mut Buffer) -> Result<()> {
        let y = y.output(h * w * c)?;
        conv::patches(&self.pool, &x.0, (h, w, c, p), y);
        Ok(())
    }

    fn upsample_add(
        &self,
        x: &Buffer,
        h: usize,
        w: usize,
        skip: &Buffer,
        oh: usize,
        ow: usize,
        c: usize,
        y: &mut Buffer,
    ) -> Result<()> {
        let len = oh * ow * c;
        let y = y.output(len)?;
        resample::upsample_add(&self.pool, self.isa, &x.0, (h, w), &skip.0[..len], (oh, ow), c, y);
        Ok(())
    }

    fn roi_align(
        &self,
        x: &Buffer,
        h: usize,
        w: usize,
        c: usize,
        boxes: &[[f32; 4]],
        size: usize,
        y: &mut Buffer,
    ) -> Result<()> {
        let y = y.output(boxes.len() * c * size * size)?;
        roi::roi_align(&self.pool, &x.0, (h, w, c), boxes, size, y);
        Ok(())
    }

    fn box_sine(&self, boxes: &Buffer, n: usize, features: usize, y: &mut Buffer) -> Result<()> {
        boxes::sine(boxes_of(boxes, n), features, y.output(n * 4 * features)?);
        Ok(())
    }

    fn box_deltas(
        &self,
        boxes: &Buffer,
        n: usize,
        height: usize,
        width: usize,
        dx: &mut Buffer,
        dy: &mut Buffer,
    ) -> Result<()> {
        boxes::deltas(boxes_of(boxes, n), 0, width, dx.output(n * width * 2)?);
        boxes::deltas(boxes_of(boxes, n), 1, height, dy.output(n * height * 2)?);
        Ok(())
    }

    fn box_refine(&self, delta: &Buffer, boxes: &Buffer, n: usize, y: &mut Buffer) -> Result<()> {
        boxes::refine(&delta.0[..4 * n], &boxes.0[..4 * n], y.output(4 * n)?);
        Ok(())
    }
}
