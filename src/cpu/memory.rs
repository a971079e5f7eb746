//! Memory of activations and of scratch, on large pages where the system has them.
//!
//! A tile of a product touches as many pages as it has rows, a normalisation over channels one after the other: with pages
//! of 4 KiB most of these are not in the processor's table of addresses, and where the system itself is a guest each look-up
//! is two. Linux gives pages of 2 MiB to whoever asks for them.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use crate::error::{Error, ErrorKind, Result};

/// From this size on, in bytes, memory is mapped and asks for large pages: one of x86-64, and of AArch64 with pages of 4 KiB.
const LARGE: usize = 2 << 20;

/// Zeroed at first. Resident only as far as it was touched.
#[derive(Default)]
pub struct Memory {
    /// What is smaller than [`LARGE`], else empty.
    small: Vec<f32>,
    large: Option<MmapMut>,
}

impl Memory {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Result<Self> {
        let failed = || Error::new(ErrorKind::OutOfMemory, format!("expected memory for {len} numbers of 4 bytes"));
        let bytes = len.checked_mul(size_of::<f32>()).ok_or_else(failed)?;
        if bytes < LARGE {
            let mut small = Vec::new();
            small.try_reserve_exact(len).map_err(|e| failed().with_source(e))?;
            small.resize(len, 0.0);
            return Ok(Self { small, large: None });
        }
        let large = MmapMut::map_anon(bytes).map_err(|e| failed().with_source(e))?;
        // A wish: a system without large pages leaves small ones.
        #[cfg(target_os = "linux")]
        let _ = large.advise(memmap2::Advice::HugePage);
        Ok(Self { small: Vec::new(), large: Some(large) })
    }
}

impl Deref for Memory {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.large {
            // A mapping begins with a page, and was made of whole numbers.
            Some(large) => bytemuck::cast_slice(large),
            None => &self.small,
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.large {
            Some(large) => bytemuck::cast_slice_mut(large),
            None => &mut self.small,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_every_size_is_zeroed_and_exact() {
        for len in [0, 1, 7, LARGE / 4 - 1, LARGE / 4, LARGE / 4 + 1, LARGE + 3] {
            let mut memory = Memory::zeroed(len).unwrap();
            assert_eq!(memory.len(), len);
            assert!(memory.iter().all(|&v| v == 0.0));
            memory.fill(1.0);
            assert_eq!(memory.iter().sum::<f32>(), len as f32);
        }
        assert_eq!(Memory::default().len(), 0);
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        for len in [usize::MAX, usize::MAX / 4] {
            assert_eq!(Memory::zeroed(len).err().unwrap().kind(), ErrorKind::OutOfMemory);
        }
    }
}
