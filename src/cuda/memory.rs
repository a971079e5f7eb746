//! Activations and matrices in device memory, and the one place where views become addresses.

use std::sync::Arc;

use half::bf16;

use super::driver::{Device, Memory};
use crate::error::Result;
use crate::ops::View;
use crate::weights::{Dtype, HostTensor};

/// Bytes of an element of an activation.
const ELEMENT: usize = size_of::<f32>();

/// An activation: f32 in device memory.
#[derive(Default)]
pub struct Act(Option<Memory>);

impl Act {
    /// Elements.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |m| m.bytes() / ELEMENT)
    }

    /// Makes room for `len` elements, without keeping the present ones.
    pub(super) fn reserve(&mut self, device: &Arc<Device>, len: usize) -> Result<()> {
        if self.len() < len {
            // Freed first, so that both are never there at once.
            self.0 = None;
            self.0 = Some(device.allocate(len * ELEMENT)?);
        }
        Ok(())
    }

    /// Address of the first `len` elements, to be written by a kernel.
    pub(super) fn output(&mut self, device: &Arc<Device>, len: usize) -> Result<u64> {
        self.reserve(device, len)?;
        Ok(self.address())
    }

    /// Address of `len` elements from `offset`, to be written; what stands before them stays.
    pub(super) fn output_at(&mut self, device: &Arc<Device>, offset: usize, len: usize) -> Result<u64> {
        let end = offset.checked_add(len).expect("the end of an output fits a usize");
        if self.len() < end {
            let mut more = device.allocate(end * ELEMENT)?;
            if let Some(old) = &self.0 {
                more.take(old)?;
            }
            self.0 = Some(more);
        }
        Ok(self.address() + (offset * ELEMENT) as u64)
    }

    fn address(&self) -> u64 {
        self.0.as_ref().map_or(0, Memory::address)
    }

    /// Address of the first `len` elements, to be read.
    pub(super) fn slice(&self, len: usize) -> u64 {
        assert!(len <= self.len(), "expected {len} elements, found an activation of {}", self.len());
        self.address()
    }

    /// Copies `src` to the element `offset`.
    pub(super) fn write<T: bytemuck::Pod>(&mut self, offset: usize, src: &[T]) -> Result<()> {
        match &mut self.0 {
            Some(memory) => memory.write(offset * ELEMENT, src),
            None => {
                assert!(src.is_empty(), "expected room for {} elements, found none", src.len());
                Ok(())
            }
        }
    }

    /// Copies from the element `offset`, and waits.
    pub(super) fn read(&self, offset: usize, dst: &mut [f32]) -> Result<()> {
        match &self.0 {
            Some(memory) => memory.read(offset * ELEMENT, dst),
            None => {
                assert!(dst.is_empty(), "expected {} elements, found an empty activation", dst.len());
                Ok(())
            }
        }
    }
}

/// Address of the first of `rows` rows of `width` elements, which must lie inside.
pub(super) fn rows(view: View<'_, Act>, rows: usize, width: usize) -> u64 {
    let View { buf, offset, stride } = view;
    assert!(stride >= width, "expected a stride of at least the width {width}, found {stride}");
    let end = match rows.checked_sub(1) {
        None => Some(0),
        Some(last) => last.checked_mul(stride).and_then(|n| n.checked_add(offset)?.checked_add(width)),
    };
    assert!(
        end.is_some_and(|end| end <= buf.len()),
        "expected {rows} rows of {width} at {offset}, {stride} apart, found an activation of {}",
        buf.len()
    );
    buf.address() + (offset * ELEMENT) as u64
}

/// A weight matrix in device memory, rows padded with zeros to 16 bytes.
pub struct Mat {
    memory: Memory,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Elements between the starts of two rows.
    pub(super) ld: usize,
}

impl Mat {
    /// The rows of all `parts`, as f32 or rounded to bf16.
    pub(super) fn stack(device: &Arc<Device>, parts: &[HostTensor], half: bool) -> Result<Self> {
        let k = parts.first().expect("a matrix has at least one part").shape()[1];
        let n = parts.iter().map(|part| part.shape()[0]).sum();
        let (element, ld) = if half { (size_of::<bf16>(), k.next_multiple_of(8)) } else { (ELEMENT, k) };
        let mut memory = device.allocate(n * ld * element)?;
        let mut row = 0;
        for part in parts {
            let &[count, columns] = part.shape() else {
                panic!("{}: expected a matrix [n, {k}], found {:?}", part.name(), part.shape());
            };
            assert_eq!(columns, k, "{}: columns of a stacked part", part.name());
            let at = row * ld * element;
            if half && part.dtype() == Dtype::Bf16 && ld == k {
                memory.write(at, part.bytes())?;
            } else if half {
                let mut rounded = vec![bf16::ZERO; count * ld];
                for (to, from) in rounded.chunks_exact_mut(ld.max(1)).zip(part.to_f32().chunks_exact(k.max(1))) {
                    to.iter_mut().zip(from).for_each(|(to, &from)| *to = bf16::from_f32(from));
                }
                memory.write(at, &rounded)?;
            } else {
                memory.write(at, &part.to_f32())?;
            }
            row += count;
        }
        Ok(Self { memory, n, k, ld })
    }

    pub(super) fn address(&self) -> u64 {
        self.memory.address()
    }
}
