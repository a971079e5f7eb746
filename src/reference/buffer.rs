//! Activations, matrices, and the one place where offsets and strides become slices.

use crate::error::{Error, ErrorKind, Result};
use crate::ops::View;
use crate::weights::HostTensor;

/// An activation: f32 in host memory.
#[derive(Clone, Debug, Default)]
pub struct Buffer(Vec<f32>);

impl Buffer {
    /// Makes room for `len` elements; growth fills the whole buffer with NaN.
    pub(super) fn reserve(&mut self, len: usize) -> Result<()> {
        if self.0.len() < len {
            // What stood here is unspecified from now on, so it need not be moved.
            self.0.clear();
            self.extend(len)?;
        }
        Ok(())
    }

    /// Makes room for `len` elements and keeps the present ones; new ones are NaN.
    fn extend(&mut self, len: usize) -> Result<()> {
        if let Some(more) = len.checked_sub(self.0.len()) {
            self.0.try_reserve_exact(more).map_err(|e| {
                let what = format!("expected memory for an activation of {len} elements, found none");
                Error::new(ErrorKind::OutOfMemory, what).with_source(e)
            })?;
            self.0.resize(len, f32::NAN);
        }
        Ok(())
    }

    /// The first `len` elements, to be written by an operation.
    pub(super) fn output(&mut self, len: usize) -> Result<&mut [f32]> {
        self.reserve(len)?;
        Ok(&mut self.0[..len])
    }

    /// `len` elements from `offset`, to be written; what stands before them stays.
    pub(super) fn output_at(&mut self, offset: usize, len: usize) -> Result<&mut [f32]> {
        let end = offset.checked_add(len).expect("the end of an output fits a usize");
        self.extend(end)?;
        Ok(&mut self.0[offset..end])
    }

    /// `len` elements from `offset`.
    pub(super) fn slice(&self, offset: usize, len: usize) -> &[f32] {
        let found = self.0.len();
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= found),
            "expected {len} elements from {offset}, found a buffer of {found}"
        );
        &self.0[offset..offset + len]
    }

    /// The first `rows·width` elements as rows.
    pub(super) fn rows(&self, rows: usize, width: usize) -> Rows<'_> {
        Rows::new(View::new(self, width), rows, width)
    }
}

/// A weight matrix `[n, k]`, widened to f32.
#[derive(Clone, Debug)]
pub struct Matrix {
    values: Vec<f32>,
    n: usize,
    k: usize,
}

impl Matrix {
    /// The rows of all `parts`, each `[n_i, k]`.
    pub(super) fn stack(parts: &[HostTensor]) -> Self {
        let k = parts.first().expect("a matrix has at least one part").shape()[1];
        let mut values = Vec::new();
        let mut n = 0;
        for part in parts {
            let &[rows, columns] = part.shape() else {
                panic!("{}: expected a matrix [n, {k}], found {:?}", part.name(), part.shape());
            };
            assert_eq!(columns, k, "{}: columns of a stacked part", part.name());
            values.extend(part.to_f32());
            n += rows;
        }
        assert_eq!(values.len(), n * k, "elements of a stacked matrix");
        Self { values, n, k }
    }

    /// Rows.
    pub(super) fn n(&self) -> usize {
        self.n
    }

    /// Columns.
    pub(super) fn k(&self) -> usize {
        self.k
    }

    /// Row `j`.
    pub(super) fn row(&self, j: usize) -> &[f32] {
        &self.values[j * self.k..][..self.k]
    }
}

/// A [`View`] whose rows have been checked to lie within their buffer.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    values: &'a [f32],
    offset: usize,
    stride: usize,
    width: usize,
}

impl<'a> Rows<'a> {
    /// `rows` rows of `width` elements.
    pub(super) fn new(view: View<'a, Buffer>, rows: usize, width: usize) -> Self {
        let View { buf, offset, stride } = view;
        let found = buf.0.len();
        assert!(stride >= width, "expected a stride of at least the width {width}, found {stride}");
        let end = match rows.checked_sub(1) {
            None => Some(0),
            Some(last) => last.checked_mul(stride).and_then(|n| n.checked_add(offset)?.checked_add(width)),
        };
        assert!(
            end.is_some_and(|end| end <= found),
            "expected {rows} rows of {width} at {offset}, {stride} apart, found a buffer of {found}"
        );
        Self { values: &buf.0, offset, stride, width }
    }

    /// Row `r`.
    pub(super) fn row(&self, r: usize) -> &'a [f32] {
        &self.values[self.offset + r * self.stride..][..self.width]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Ops;
    use crate::reference::ReferenceOps;
    use crate::weights::Dtype;

    fn buffer(values: &[f32]) -> Buffer {
        Buffer(values.to_vec())
    }

    #[test]
    fn growth_poisons_but_room_is_kept() {
        let mut b = buffer(&[1.0, 2.0]);
        b.reserve(1).unwrap();
        assert_eq!(b.slice(0, 2), [1.0, 2.0]);
        b.reserve(3).unwrap();
        assert!(b.slice(0, 3).iter().all(|x| x.is_nan()));
    }

    #[test]
    fn output_at_keeps_what_stands_before() {
        let mut b = buffer(&[1.0, 2.0]);
        b.output_at(2, 2).unwrap().copy_from_slice(&[3.0, 4.0]);
        assert_eq!(b.slice(0, 4), [1.0, 2.0, 3.0, 4.0]);
        b.output_at(1, 1).unwrap()[0] = 5.0;
        assert_eq!(b.slice(0, 4), [1.0, 5.0, 3.0, 4.0]);
    }

    #[test]
    fn memory_that_cannot_be_had_is_an_error() {
        let e = buffer(&[]).reserve(usize::MAX / 8).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutOfMemory);
    }

    #[test]
    fn last_row_may_end_at_the_buffers_end() {
        let b = buffer(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let rows = Rows::new(View::columns(&b, 1, 3), 2, 2);
        assert_eq!((rows.row(0), rows.row(1)), (&[1.0, 2.0][..], &[4.0, 5.0][..]));
    }

    #[test]
    #[should_panic(expected = "expected 2 rows of 2 at 2, 3 apart, found a buffer of 6")]
    fn rows_past_the_end_panic() {
        Rows::new(View::columns(&buffer(&[0.0; 6]), 2, 3), 2, 2);
    }

    #[test]
    #[should_panic(expected = "expected a stride of at least the width 3, found 2")]
    fn overlapping_rows_panic() {
        Rows::new(View { buf: &buffer(&[0.0; 6]), offset: 0, stride: 2 }, 2, 3);
    }

    #[test]
    fn parts_of_different_types_are_stacked_and_widened() {
        let bf16 = |x: f32| half::bf16::from_f32(x).to_le_bytes();
        let f16 = |x: f32| half::f16::from_f32(x).to_le_bytes();
        let m = ReferenceOps
            .matrix(&[
                HostTensor::from_f32("a", &[1, 2], vec![1.0, 2.0]).unwrap(),
                HostTensor::from_bytes("b", &[2, 2], Dtype::Bf16, [3.0, 4.0, 5.0, 6.0].map(bf16).concat()).unwrap(),
                HostTensor::from_bytes("c", &[1, 2], Dtype::F16, [0.5, -0.25].map(f16).concat()).unwrap(),
            ])
            .unwrap();
        assert_eq!((m.n(), m.k()), (4, 2));
        assert_eq!(m.values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.5, -0.25]);
    }
}
