//! Device memory: blocks of the driver's stream-ordered pool, which are kept for the next taker when they are given back.
//!
//! Buffers of a session grow to what is asked of them and stay ([`crate::ops::Ops::reserve`]); the features of pictures and
//! phrases come and go, and find their blocks here. So once every kind of call was made, none asks the driver for memory.
//! An arena planned at start would need every shape beforehand, which only the model knows: phrases of 1 to 32 tokens,
//! 1 to some hundred exemplars, pictures in memory as many as the caller likes. What it would save, the driver's pool
//! saves already, which cuts blocks of any size from few large ones.
//!
//! All work is on one stream, so a block that was given back may be taken at once: whatever used it was enqueued before.
//! Launches that a batch still holds back are the exception, so a thread with an open batch gives blocks back when it
//! ends.

use std::sync::Arc;

use cudarc::driver::{DriverError, result, sys};

use super::driver::{Device, failed};
use crate::error::Result;

/// Most bytes that are kept for the next taker: the features of three pictures at the published size in f32, `25·5184·256·4`
/// bytes each, and what surrounds them.
const MOST_KEPT: usize = 512 << 20;

/// Blocks are multiples of this, what the driver aligns to.
const GRAIN: usize = 256;

/// Below this, blocks are eighths of a power of two apart, so that phrases of any length find a block.
const SMALL: usize = 1 << 20;

/// Bytes of a block that serves `bytes`.
fn block(bytes: usize) -> usize {
    let step = if bytes < SMALL { (bytes.max(1).next_power_of_two() / 16).max(GRAIN) } else { GRAIN };
    bytes.max(1).next_multiple_of(step)
}

/// Blocks that nobody has.
#[derive(Default)]
pub struct Kept {
    blocks: Vec<Block>,
    bytes: usize,
}

/// Memory of the driver.
#[derive(Clone, Copy)]
pub struct Block {
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl Kept {
    /// A block of exactly so many bytes, the one given back last, whose data may still be in the cache.
    fn take(&mut self, bytes: usize) -> Option<Block> {
        let at = self.blocks.iter().rposition(|block| block.bytes == bytes)?;
        self.bytes -= bytes;
        Some(self.blocks.remove(at))
    }

    /// Keeps a block, or frees it where enough are kept.
    pub(super) fn give(&mut self, block: Block, stream: sys::CUstream) {
        if self.bytes + block.bytes > MOST_KEPT {
            free(block, stream);
        } else {
            self.bytes += block.bytes;
            self.blocks.push(block);
        }
    }

    /// Gives all blocks back to the driver; false if there are none.
    pub(super) fn release(&mut self, stream: sys::CUstream) -> bool {
        self.bytes = 0;
        self.blocks.drain(..).map(|block| free(block, stream)).count() > 0
    }
}

/// Frees a block behind all work enqueued before. A failure can only mean that the context is lost, and the memory with
/// it.
fn free(block: Block, stream: sys::CUstream) {
    // SAFETY: `allocate` made the address, and a `Block` is freed or kept once.
    let _ = unsafe { result::free_async(block.address, stream) };
}

impl Device {
    /// Memory of at least one byte, with unspecified contents.
    pub(super) fn allocate(self: &Arc<Self>, bytes: usize) -> Result<Memory> {
        let wanted = block(bytes);
        if let Some(block) = self.kept().take(wanted) {
            return Ok(Memory { device: self.clone(), block, bytes });
        }
        self.bind()?;
        // SAFETY: the stream is this device's, and a `Block` is freed once, on the same stream.
        let ask = || unsafe { result::malloc_async(self.stream(), wanted) };
        let address = ask().or_else(|e| {
            let full = e == DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
            if full && self.kept().release(self.stream()) { ask() } else { Err(e) }
        });
        let address = address.map_err(|e| failed(&format!("{bytes} bytes of device memory"), e))?;
        Ok(Memory { device: self.clone(), block: Block { address, bytes: wanted }, bytes })
    }
}

/// Bytes of device memory.
pub struct Memory {
    device: Arc<Device>,
    block: Block,
    bytes: usize,
}

impl Memory {
    /// Where it is, aligned to 256 bytes.
    pub(super) fn address(&self) -> u64 {
        self.block.address
    }

    /// How much it is.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address of `bytes` bytes from `offset` on, which must lie inside.
    fn span(&self, offset: usize, bytes: usize) -> sys::CUdeviceptr {
        let end = offset.checked_add(bytes);
        assert!(
            end.is_some_and(|end| end <= self.bytes),
            "expected {bytes} bytes from {offset}, found {} bytes of device memory",
            self.bytes
        );
        self.block.address + offset as u64
    }

    /// Copies `src` to the byte `offset`, after all work enqueued before.
    pub(super) fn write<T: bytemuck::Pod>(&mut self, offset: usize, src: &[T]) -> Result<()> {
        if src.is_empty() {
            return Ok(());
        }
        let to = self.span(offset, size_of_val(src));
        self.device.hand_over()?;
        self.device.bind()?;
        // SAFETY: `span` checked the destination. The driver has taken pageable memory over when the call returns.
        unsafe { result::memcpy_htod_async(to, src, self.device.stream()) }
            .map_err(|e| failed("copying to the device", e))
    }

    /// Copies from the byte `offset` to `dst`, after all work enqueued before, and waits.
    pub(super) fn read<T: bytemuck::Pod>(&self, offset: usize, dst: &mut [T]) -> Result<()> {
        if dst.is_empty() {
            return Ok(());
        }
        let from = self.span(offset, size_of_val(dst));
        self.device.hand_over()?;
        self.device.bind()?;
        // SAFETY: `span` checked the source; `dst` is borrowed until the stream has been waited for below, on success and
        // on failure. Any bits are a `Pod`.
        let copied = unsafe { result::memcpy_dtoh_async(dst, from, self.device.stream()) };
        let waited = self.device.synchronize();
        copied.map_err(|e| failed("copying from the device", e))?;
        waited
    }

    /// Copies all of `src` to the start, after all work enqueued before.
    pub(super) fn take(&mut self, src: &Memory) -> Result<()> {
        let to = self.span(0, src.bytes);
        self.device.hand_over()?;
        self.device.bind()?;
        // SAFETY: `span` checked the destination, the source is whole, and `&mut` keeps them apart. Both are given back
        // behind the copy.
        unsafe { result::memcpy_dtod_async(to, src.block.address, src.bytes, self.device.stream()) }
            .map_err(|e| failed("copying on the device", e))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // What a batch of this thread still holds back may use it.
        if self.device.batches().keep(self.block) {
            return;
        }
        if self.device.bind().is_ok() {
            self.device.kept().give(self.block, self.device.stream());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_a_little_larger_than_what_they_serve() {
        for bytes in [0, 1, 255, 256, 257, 5000, 40_000, SMALL - 1, SMALL, SMALL + 1, 27 << 20] {
            let block = block(bytes);
            assert!(block >= bytes && block.is_multiple_of(GRAIN), "{bytes}: {block}");
            assert!(block - bytes <= (bytes / 8).max(GRAIN), "{bytes}: {block}");
        }
        assert_eq!(block(27 << 20), 27 << 20);
    }
}
