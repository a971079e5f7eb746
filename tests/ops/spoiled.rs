//! An implementation with a small fault in every operation, to prove that the suite finds it in each case.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sam3::Result;
use sam3::image::ImageView;
use sam3::ops::{Activation, Attention, Cut, Epilogue, Linear, Norm, Ops, Projected, View, timed};
use sam3::reference::{Buffer, Matrix, ReferenceOps};
use sam3::weights::HostTensor;

/// What is wrong with the last element of the last output.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    /// Off by a hundredth.
    Wrong,
    /// Its last bits change from call to call, as they would after a race.
    Unsteady,
}

/// The reference with a fault in every operation but `download`, through which all results pass.
pub struct Spoiled {
    fault: Fault,
    calls: AtomicU32,
}

impl Spoiled {
    pub fn new(fault: Fault) -> Self {
        Self { fault, calls: AtomicU32::new(0) }
    }

    /// Spoils the last of `len` elements.
    fn spoil(&self, y: &mut Buffer, len: usize) -> Result<()> {
        let mut values = vec![0.0; len];
        ReferenceOps.download(y, 0, &mut values)?;
        if let Some(last) = values.last_mut() {
            match self.fault {
                Fault::Wrong => *last += 0.01 * last.abs().max(1.0),
                // No case makes as many calls of an operation as three bits count.
                Fault::Unsteady => {
                    *last = f32::from_bits(last.to_bits() ^ (self.calls.fetch_add(1, Ordering::Relaxed) & 7));
                }
            }
        }
        ReferenceOps.upload(&values, y)
    }
}

/// The layer as the reference's own type.
fn layer(l: &Linear<Spoiled>) -> Linear<ReferenceOps> {
    Linear { w: l.w.clone(), b: l.b.clone(), n: l.n, k: l.k }
}

fn norm(n: &Norm<Spoiled>) -> Norm<ReferenceOps> {
    Norm { gamma: n.gamma.clone(), beta: n.beta.clone(), eps: n.eps, width: n.width }
}

impl Ops for Spoiled {
    type Act = Buffer;
    type Mat = Matrix;
    type Clock = Duration;

    fn stage<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
        timed(work)
    }

    fn elapsed(&self, clock: Duration) -> Result<Duration> {
        Ok(clock)
    }

    fn reserve(&self, act: &mut Buffer, len: usize) -> Result<()> {
        ReferenceOps.reserve(act, len)
    }

    fn upload(&self, src: &[f32], dst: &mut Buffer) -> Result<()> {
        ReferenceOps.upload(src, dst)
    }

    fn download(&self, src: &Buffer, offset: usize, dst: &mut [f32]) -> Result<()> {
        ReferenceOps.download(src, offset, dst)
    }

    fn matrix(&self, parts: &[HostTensor]) -> Result<Matrix> {
        ReferenceOps.matrix(parts)
    }

    fn linear(
        &self,
        x: View<'_, Buffer>,
        l: &Linear<Self>,
        m: usize,
        ep: Epilogue<'_, Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        ReferenceOps.linear(x, &layer(l), m, ep, y)?;
        self.spoil(y, m * l.n)
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
        ReferenceOps.dot(a, m, b, n, k, y)?;
        self.spoil(y, m * n)
    }

    fn conv3x3(&self, x: &Buffer, l: &Linear<Self>, h: usize, w: usize, y: &mut Buffer) -> Result<()> {
        ReferenceOps.conv3x3(x, &layer(l), h, w, y)?;
        self.spoil(y, h * w * l.n)
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
        ReferenceOps.deconv2x2(x, &layer(l), h, w, ep, y)?;
        self.spoil(y, h * w * l.n)
    }

    fn attention(
        &self,
        q: View<'_, Buffer>,
        k: View<'_, Buffer>,
        v: View<'_, Buffer>,
        spec: &Attention<'_, Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        ReferenceOps.attention(q, k, v, spec, y)?;
        self.spoil(y, spec.queries * spec.heads * spec.head_dim)
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
        let layers = qkv.each_ref().map(|p| p.from.as_ref().map(|(_, l)| layer(l)));
        let side = |i: usize| {
            let from = qkv[i].from.as_ref().zip(layers[i].as_ref());
            Projected { from: from.map(|((x, _), l)| (*x, l)), add: qkv[i].add }
        };
        ReferenceOps.attend([side(0), side(1), side(2)], spec, &layer(o), residual, inner, y)?;
        self.spoil(y, spec.queries * o.n)
    }

    fn layer_norm(
        &self,
        x: View<'_, Buffer>,
        n: &Norm<Self>,
        rows: usize,
        act: Activation,
        y: &mut Buffer,
    ) -> Result<()> {
        ReferenceOps.layer_norm(x, &norm(n), rows, act, y)?;
        self.spoil(y, rows * n.width)
    }

    fn group_norm(
        &self,
        x: &Buffer,
        n: &Norm<Self>,
        groups: usize,
        rows: usize,
        act: Activation,
        y: &mut Buffer,
    ) -> Result<()> {
        ReferenceOps.group_norm(x, &norm(n), groups, rows, act, y)?;
        self.spoil(y, rows * n.width)
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
        ReferenceOps.add(a, b, b_rows, rows, width, y)?;
        self.spoil(y, rows * width)
    }

    fn copy(&self, x: View<'_, Buffer>, rows: usize, width: usize, y: &mut Buffer, offset: usize) -> Result<()> {
        ReferenceOps.copy(x, rows, width, y, offset)?;
        self.spoil(y, offset + rows * width)
    }

    fn gather(&self, table: &Matrix, ids: &[u32], y: &mut Buffer) -> Result<()> {
        ReferenceOps.gather(table, ids, y)?;
        // The table's width is the back end's secret; one element for each id is always there.
        self.spoil(y, ids.len())
    }

    fn mean_rows(&self, x: View<'_, Buffer>, rows: usize, width: usize, y: &mut Buffer) -> Result<()> {
        ReferenceOps.mean_rows(x, rows, width, y)?;
        self.spoil(y, width)
    }

    fn ingest(&self, picture: &ImageView<'_>, side: usize, y: &mut Buffer) -> Result<()> {
        ReferenceOps.ingest(picture, side, y)?;
        self.spoil(y, side * side * 3)
    }

    fn cut(&self, cut: &Cut, masks: &mut [(&[f32], &mut [u64])]) -> Result<()> {
        ReferenceOps.cut(cut, masks)?;
        if let Some(word) = masks.last_mut().and_then(|(_, words)| words.last_mut()) {
            match self.fault {
                Fault::Wrong => *word ^= 1,
                Fault::Unsteady => *word ^= u64::from(self.calls.fetch_add(1, Ordering::Relaxed) & 7),
            }
        }
        Ok(())
    }

    fn patches(&self, x: &Buffer, h: usize, w: usize, c: usize, p: usize, y: &mut Buffer) -> Result<()> {
        ReferenceOps.patches(x, h, w, c, p, y)?;
        self.spoil(y, h * w * c)
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
        ReferenceOps.upsample_add(x, h, w, skip, oh, ow, c, y)?;
        self.spoil(y, oh * ow * c)
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
        ReferenceOps.roi_align(x, h, w, c, boxes, size, y)?;
        self.spoil(y, boxes.len() * c * size * size)
    }

    fn box_sine(&self, boxes: &Buffer, n: usize, features: usize, y: &mut Buffer) -> Result<()> {
        ReferenceOps.box_sine(boxes, n, features, y)?;
        self.spoil(y, n * 4 * features)
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
        ReferenceOps.box_deltas(boxes, n, height, width, dx, dy)?;
        self.spoil(dy, n * height * 2)
    }

    fn box_refine(&self, delta: &Buffer, boxes: &Buffer, n: usize, y: &mut Buffer) -> Result<()> {
        ReferenceOps.box_refine(delta, boxes, n, y)?;
        self.spoil(y, n * 4)
    }
}
