//! The structs that cross the boundary as they are.
//!
//! Those that may grow begin with their size in bytes, which the caller sets to `sizeof` before every call. A library
//! that is newer than its caller then sees which members there are; one that is older takes what it knows, and refuses
//! a struct whose further members ask for something. Members are only ever added at the end.

use std::mem::MaybeUninit;

use super::boundary::given;
use crate::{Error, ErrorKind, Result};

/// A box: edges in pixels of the upright picture, x to the right and y down, `x0 < x1` and `y0 < y1`; the whole picture
/// is `{0, 0, width, height}`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct sam3_box {
    /// Left edge.
    pub x0: f32,
    /// Top edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Bottom edge.
    pub y1: f32,
}

/// A click, in pixels of the upright picture from its top left corner; the middle of the first pixel is `0.5, 0.5`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct sam3_point {
    /// Pixels to the right.
    pub x: f32,
    /// Pixels down.
    pub y: f32,
    /// 1: the object is here. 0: it is not.
    pub positive: u32,
}

/// Whole pixels: columns `x .. x + width`, rows `y .. y + height`. All 0 for nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct sam3_rect {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Structs that begin with their size.
///
/// # Safety
/// `repr(C)`, a `u32` first, no padding between members, and every pattern of bits is a value.
pub(super) unsafe trait Sized32: Copy {
    /// Bytes of the struct's first version: no caller has less.
    const FIRST: usize;
    /// Its name in C.
    const NAME: &'static str;
}

/// No struct of this interface will have so many bytes: larger sizes are variables that nobody set.
const ABSURD: usize = 4096;

fn check_size<T: Sized32>(size: u32) -> Result<usize> {
    let size = size as usize;
    if !(T::FIRST..=ABSURD).contains(&size) {
        let name = T::NAME;
        return Err(Error::invalid(format!("{name}.size: expected sizeof({name}), found {size}")));
    }
    Ok(size)
}

/// The caller's struct, with zeros for members it does not have.
///
/// # Safety
/// A pointer that is neither NULL nor misaligned points to as many bytes as its first `u32` says.
pub(super) unsafe fn read<T: Sized32>(pointer: *const T, what: &str) -> Result<T> {
    // SAFETY: handed on; the first member is there in every version.
    let size = *unsafe { given(pointer.cast::<u32>(), what) }?;
    let size = check_size::<T>(size)?;
    // The first member's alignment is checked; the struct's own may be more.
    if !pointer.is_aligned() {
        return Err(Error::invalid(format!("{what}: expected an aligned {}, found {pointer:p}", T::NAME)));
    }
    // SAFETY: the caller promises `size` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), size) };
    if bytes.iter().skip(size_of::<T>()).any(|&b| b != 0) {
        let message = format!("{what}: {} has members that this library does not know; it is too old", T::NAME);
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: at most `size_of::<T>()` bytes go into room for a `T`; every pattern of bits is a `T`.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.as_mut_ptr().cast(), size.min(size_of::<T>()));
        Ok(value.assume_init())
    }
}

/// A struct of the caller's that is to be filled.
pub(super) struct Fill<T> {
    pointer: *mut T,
    size: usize,
}

/// Looks at the size of a struct that is to be filled.
///
/// # Safety
/// As [`read`], for writing, and until the value is dropped.
pub(super) unsafe fn fill<T: Sized32>(pointer: *mut T, what: &str) -> Result<Fill<T>> {
    // SAFETY: handed on; the first member is there in every version, and set.
    let size = *unsafe { given(pointer.cast_const().cast::<u32>(), what) }?;
    let size = check_size::<T>(size)?;
    if !pointer.is_aligned() {
        return Err(Error::invalid(format!("{what}: expected an aligned {}, found {pointer:p}", T::NAME)));
    }
    Ok(Fill { pointer, size })
}

impl<T: Sized32> Fill<T> {
    /// Fills what the caller has room for. The size stays; members that this library does not know become 0.
    pub fn write(self, value: T) {
        let known = self.size.min(size_of::<T>());
        let to = self.pointer.cast::<u8>();
        let from = (&raw const value).cast::<u8>();
        // SAFETY: `fill` was promised `size` bytes; `known` is at most that and at most a `T`, and the first four of
        // both are their sizes. The structs have no padding, so all bytes are initialised.
        unsafe {
            std::ptr::copy_nonoverlapping(from.add(4), to.add(4), known - 4);
            std::ptr::write_bytes(to.add(known), 0, self.size - known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Pair {
        size: u32,
        a: u32,
        b: u32,
    }

    // SAFETY: three `u32`.
    unsafe impl Sized32 for Pair {
        const FIRST: usize = 8;
        const NAME: &'static str = "pair";
    }

    fn read_words(words: &[u32]) -> Result<Pair> {
        // SAFETY: every test below has as many words as its size says, or a size that is refused.
        unsafe { read(words.as_ptr().cast::<Pair>(), "x") }
    }

    #[test]
    fn older_callers_have_fewer_members() {
        assert_eq!(read_words(&[8, 5, 99]).unwrap(), Pair { size: 8, a: 5, b: 0 });
        assert_eq!(read_words(&[12, 5, 6]).unwrap(), Pair { size: 12, a: 5, b: 6 });
        let mut words = [8, 1, 2];
        // SAFETY: 12 bytes, 8 of them the struct's.
        let fill = unsafe { fill(words.as_mut_ptr().cast::<Pair>(), "x") }.unwrap();
        fill.write(Pair { size: 0, a: 7, b: 8 });
        assert_eq!(words, [8, 7, 2]);
    }

    #[test]
    fn newer_callers_may_not_ask_for_what_is_not_known() {
        assert_eq!(read_words(&[16, 5, 6, 0]).unwrap().b, 6);
        assert_eq!(read_words(&[16, 5, 6, 1]).unwrap_err().kind(), ErrorKind::Unsupported);
        let mut words = [16, 1, 2, 3];
        // SAFETY: 16 bytes, as the size says.
        let fill = unsafe { fill(words.as_mut_ptr().cast::<Pair>(), "x") }.unwrap();
        fill.write(Pair { size: 0, a: 7, b: 8 });
        assert_eq!(words, [16, 7, 8, 0]);
    }

    #[test]
    fn unset_sizes_are_refused() {
        for size in [0, 4, 7, 4097, u32::MAX] {
            assert_eq!(read_words(&[size, 0, 0]).unwrap_err().kind(), ErrorKind::InvalidArgument, "{size}");
        }
        // SAFETY: NULL and misaligned pointers are looked at before they are used.
        let (null, odd) =
            unsafe { (read::<Pair>(std::ptr::null(), "x"), read::<Pair>(std::ptr::without_provenance(1), "x")) };
        assert!(null.is_err() && odd.is_err());
    }
}
