//! Activations and matrices in device memory, and the one place where views become addresses.

use std::sync::Arc;

use half::bf16;

use super::driver::{Device, Memory};
use super::{CudaOps, Precision};
use crate::error::Result;
use crate::ops::View;
use crate::weights::{Dtype, HostTensor};

/// Bytes of an element in f32.
const ELEMENT: usize = size_of::<f32>();

/// Kernels read and write 16 bytes at a time; what lies behind an output begins at a multiple of them.
const ALIGNMENT: usize = 16;

/// An activation in device memory. Its elements are f32, or bf16 where [`Ops::operand`](crate::ops::Ops::operand) made it
/// and an operation wrote it in [`Precision::Bf16`].
#[derive(Default)]
pub struct Act {
    memory: Option<Memory>,
    /// Made for operands of products.
    operand: bool,
    /// What it holds is bf16.
    half: bool,
}

/// Rows of an activation as kernels take them.
pub(super) struct Rows {
    /// Of the first row.
    pub(super) address: u64,
    /// Elements are bf16.
    pub(super) half: bool,
}

impl Rows {
    /// `flag` where the elements are bf16, for the kernels' word of such flags.
    pub(super) fn flag(&self, flag: u32) -> u32 {
        if self.half { flag } else { 0 }
    }
}

impl Act {
    /// The empty buffer for operands.
    pub(super) fn operand() -> Self {
        Self { operand: true, ..Self::default() }
    }

    /// Bytes of an element.
    fn element(&self) -> usize {
        if self.half { size_of::<bf16>() } else { ELEMENT }
    }

    /// Elements.
    pub(super) fn len(&self) -> usize {
        self.bytes() / self.element()
    }

    fn bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, Memory::bytes)
    }

    /// Makes room for `bytes`, without keeping the present ones.
    fn reserve_bytes(&mut self, device: &Arc<Device>, bytes: usize) -> Result<()> {
        if self.bytes() < bytes {
            // Freed first, so that both are never there at once.
            self.memory = None;
            self.memory = Some(device.allocate(bytes)?);
        }
        Ok(())
    }

    /// Makes room for `len` elements, without keeping the present ones.
    pub(super) fn reserve(&mut self, device: &Arc<Device>, len: usize) -> Result<()> {
        self.reserve_bytes(device, len * self.element())
    }

    /// Address of the first `len` elements, to be written by a kernel as f32.
    pub(super) fn output(&mut self, device: &Arc<Device>, len: usize) -> Result<u64> {
        self.half = false;
        self.reserve(device, len)?;
        Ok(self.address())
    }

    /// The first `len` elements, to be written by a kernel in what the buffer is for, and the address of `behind` bytes
    /// behind them for what the call needs beside its output.
    pub(super) fn output_with(&mut self, ops: &CudaOps, len: usize, behind: usize) -> Result<(Rows, u64)> {
        self.half = self.operand && ops.precision == Precision::Bf16;
        let start = (len * self.element()).next_multiple_of(ALIGNMENT);
        self.reserve_bytes(&ops.device, start + behind)?;
        Ok((Rows { address: self.address(), half: self.half }, self.address() + start as u64))
    }

    /// The first `len` elements, to be written by a kernel in what the buffer is for.
    pub(super) fn output_as(&mut self, ops: &CudaOps, len: usize) -> Result<Rows> {
        Ok(self.output_with(ops, len, 0)?.0)
    }

    /// `len` elements from `offset`, to be written; what stands before them stays, and is followed in its type.
    pub(super) fn output_at(&mut self, ops: &CudaOps, offset: usize, len: usize) -> Result<Rows> {
        if offset == 0 || self.memory.is_none() {
            self.half = self.operand && ops.precision == Precision::Bf16;
        }
        let end = offset.checked_add(len).expect("the end of an output fits a usize") * self.element();
        if self.bytes() < end {
            let mut more = ops.device.allocate(end)?;
            if let Some(old) = &self.memory {
                more.take(old)?;
            }
            self.memory = Some(more);
        }
        Ok(Rows { address: self.address() + (offset * self.element()) as u64, half: self.half })
    }

    fn address(&self) -> u64 {
        self.memory.as_ref().map_or(0, Memory::address)
    }

    /// Address of the first `len` elements, to be read as f32.
    pub(super) fn slice(&self, len: usize) -> u64 {
        let rows = self.whole(len);
        assert!(!rows.half, "expected an activation of f32, found one of bf16");
        rows.address
    }

    /// The first `len` elements, to be read.
    pub(super) fn whole(&self, len: usize) -> Rows {
        assert!(len <= self.len(), "expected {len} elements, found an activation of {}", self.len());
        Rows { address: self.address(), half: self.half }
    }

    /// Copies `src` to the element `offset` of f32.
    pub(super) fn write<T: bytemuck::Pod>(&mut self, offset: usize, src: &[T]) -> Result<()> {
        assert!(!self.half, "expected an activation of f32, found one of bf16");
        self.write_bytes(offset * ELEMENT, src)
    }

    /// Copies `src` to the byte `at`.
    pub(super) fn write_bytes<T: bytemuck::Pod>(&mut self, at: usize, src: &[T]) -> Result<()> {
        match &mut self.memory {
            Some(memory) => memory.write(at, src),
            None => {
                assert!(src.is_empty(), "expected room for {} elements, found none", src.len());
                Ok(())
            }
        }
    }

    /// Copies from the element `offset`, and waits.
    pub(super) fn read(&self, offset: usize, dst: &mut [f32]) -> Result<()> {
        match &self.memory {
            Some(memory) if self.half => {
                let mut rounded = vec![bf16::ZERO; dst.len()];
                memory.read(offset * self.element(), &mut rounded)?;
                dst.iter_mut().zip(rounded).for_each(|(to, from)| *to = from.to_f32());
                Ok(())
            }
            Some(memory) => memory.read(offset * ELEMENT, dst),
            None => {
                assert!(dst.is_empty(), "expected {} elements, found an empty activation", dst.len());
                Ok(())
            }
        }
    }
}

/// The `rows` rows of `width` elements, which must lie inside.
pub(super) fn rows(view: View<'_, Act>, rows: usize, width: usize) -> Rows {
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
    Rows { address: buf.address() + (offset * buf.element()) as u64, half: buf.half }
}

/// As [`rows`], of f32.
pub(super) fn rows_f32(view: View<'_, Act>, count: usize, width: usize) -> u64 {
    let found = rows(view, count, width);
    assert!(!found.half, "expected rows of f32, found rows of bf16");
    found.address
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
