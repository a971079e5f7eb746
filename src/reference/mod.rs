//! The definition of every operation: naive loops that read like the formulas of [`Ops`].
//!
//! Sums and transcendental functions are taken in f64 and rounded to f32 once, when an output element is stored, so
//! that a result is right to about half an ulp and other back ends are measured against it (`tests/ops.rs`). Nothing
//! here is fast, threaded or blocked; it also runs tiny models whole (`--device reference`).
//!
//! Every call checks its dimensions against its buffers, and memory that no operation has written holds NaN, so that a
//! caller who reads it sees it in the result.

mod attention;
mod boxes;
mod buffer;
mod dense;
#[cfg(test)]
mod golden;
mod math;
mod norm;
mod picture;
mod roi;
mod rows;

pub use buffer::{Buffer, Matrix};
pub use math::{erf, erfc};

use std::time::Duration;

use crate::error::Result;
use crate::image::ImageView;
use crate::ops::{Activation, Attention, Cut, Epilogue, Linear, Norm, Ops, View, timed};
use crate::weights::HostTensor;

/// The reference back end; has no state.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferenceOps;

impl Ops for ReferenceOps {
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
        act.reserve(len)
    }

    fn upload(&self, src: &[f32], dst: &mut Buffer) -> Result<()> {
        dst.output(src.len())?.copy_from_slice(src);
        Ok(())
    }

    fn download(&self, src: &Buffer, offset: usize, dst: &mut [f32]) -> Result<()> {
        dst.copy_from_slice(src.slice(offset, dst.len()));
        Ok(())
    }

    fn matrix(&self, parts: &[HostTensor]) -> Result<Matrix> {
        Ok(Matrix::stack(parts))
    }

    fn linear(
        &self,
        x: View<'_, Buffer>,
        l: &Linear<Self>,
        m: usize,
        ep: Epilogue<'_, Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        dense::linear(x, l, m, ep, y)
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
        dense::dot(a, m, b, n, k, y)
    }

    fn conv3x3(&self, x: &Buffer, l: &Linear<Self>, h: usize, w: usize, y: &mut Buffer) -> Result<()> {
        dense::conv3x3(x, l, h, w, y)
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
        dense::deconv2x2(x, l, h, w, ep, y)
    }

    fn attention(
        &self,
        q: View<'_, Buffer>,
        k: View<'_, Buffer>,
        v: View<'_, Buffer>,
        spec: &Attention<'_, Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        attention::attention(q, k, v, spec, y)
    }

    fn layer_norm(
        &self,
        x: View<'_, Buffer>,
        norm: &Norm<Self>,
        rows: usize,
        act: Activation,
        y: &mut Buffer,
    ) -> Result<()> {
        norm::layer_norm(x, norm, rows, act, y)
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
        norm::group_norm(x, norm, groups, rows, act, y)
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
        rows::add(a, b, b_rows, rows, width, y)
    }

    fn copy(&self, x: View<'_, Buffer>, rows: usize, width: usize, y: &mut Buffer, offset: usize) -> Result<()> {
        rows::copy(x, rows, width, y, offset)
    }

    fn gather(&self, table: &Matrix, ids: &[u32], y: &mut Buffer) -> Result<()> {
        rows::gather(table, ids, y)
    }

    fn mean_rows(&self, x: View<'_, Buffer>, rows: usize, width: usize, y: &mut Buffer) -> Result<()> {
        rows::mean_rows(x, rows, width, y)
    }

    fn ingest(&self, picture: &ImageView<'_>, side: usize, y: &mut Buffer) -> Result<()> {
        picture::ingest(picture, side, y)
    }

    fn cut(&self, cut: &Cut, masks: &mut [(&[f32], &mut [u64])]) -> Result<()> {
        picture::cut(cut, masks);
        Ok(())
    }

    fn patches(&self, x: &Buffer, h: usize, w: usize, c: usize, p: usize, y: &mut Buffer) -> Result<()> {
        picture::patches(x, h, w, c, p, y)
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
        picture::upsample_add(x, [h, w], skip, [oh, ow], c, y)
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
        roi::roi_align(x, h, w, c, boxes, size, y)
    }

    fn box_sine(&self, boxes: &Buffer, n: usize, features: usize, y: &mut Buffer) -> Result<()> {
        boxes::sine(boxes, n, features, y)
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
        boxes::deltas(boxes, n, height, width, dx, dy)
    }

    fn box_refine(&self, delta: &Buffer, boxes: &Buffer, n: usize, y: &mut Buffer) -> Result<()> {
        boxes::refine(delta, boxes, n, y)
    }
}
