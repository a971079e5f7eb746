//! Checkpoints from wherever the host keeps its files.

use std::ffi::{CStr, c_char, c_void};

use super::open::no_memory;
use super::plain::Sized32;
use crate::{Error, ErrorKind, Result};

/// Bytes of the file `name`, or a negative number if there is none. `user` is the reader's. It must not throw.
pub type sam3_size_fn = Option<unsafe extern "C" fn(user: *mut c_void, name: *const c_char) -> i64>;

/// Reads up to `size` bytes of the file `name` from `offset` on into `buffer`, and returns how many it read: fewer are
/// fine, 0 and less mean that reading failed. `user` is the reader's. It must not throw.
pub type sam3_read_fn = Option<
    unsafe extern "C" fn(user: *mut c_void, name: *const c_char, offset: u64, buffer: *mut c_void, size: u64) -> i64,
>;

/// A file system of the host: an archive, a resource, a network. Asked for `config.json`, `model.safetensors` and
/// `tokenizer.json` (which may be absent). Set `size` to `sizeof(sam3_reader)`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct sam3_reader {
    /// `sizeof(sam3_reader)`.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Handed to the callbacks as it is.
    pub user: *mut c_void,
    /// How large a file is.
    pub size_of: sam3_size_fn,
    /// Its bytes.
    pub read: sam3_read_fn,
}

// SAFETY: u32 ×2 and three pointers, of which NULL is `None`: no padding. Stray function pointers are the caller's.
unsafe impl Sized32 for sam3_reader {
    const FIRST: usize = 8 + 3 * size_of::<*mut c_void>();
    const NAME: &'static str = "sam3_reader";
}

/// A reader whose callbacks are there.
pub(super) struct Files {
    user: *mut c_void,
    size_of: unsafe extern "C" fn(*mut c_void, *const c_char) -> i64,
    read: unsafe extern "C" fn(*mut c_void, *const c_char, u64, *mut c_void, u64) -> i64,
}

impl Files {
    pub fn new(reader: &sam3_reader) -> Result<Self> {
        match (reader.size_of, reader.read) {
            (Some(size_of), Some(read)) => Ok(Self { user: reader.user, size_of, read }),
            _ => Err(Error::invalid("reader: expected both callbacks, found NULL")),
        }
    }

    /// A file that has to be there.
    pub fn all(&self, name: &CStr) -> Result<Vec<u8>> {
        let missing = || Error::new(ErrorKind::Io, format!("reader: expected a file {}", name.to_string_lossy()));
        self.all_if_any(name)?.ok_or_else(missing)
    }

    /// A file, `None` if there is none.
    pub fn all_if_any(&self, name: &CStr) -> Result<Option<Vec<u8>>> {
        let place = || format!("reader: {}", name.to_string_lossy());
        // SAFETY: the caller gave a function of this type with the `user` it wants; the name outlives the call.
        let size = unsafe { (self.size_of)(self.user, name.as_ptr()) };
        let Ok(size) = u64::try_from(size) else { return Ok(None) };
        let full = || no_memory(size).at(place());
        let mut bytes = Vec::new();
        let len = usize::try_from(size).map_err(|e| full().with_source(e))?;
        bytes.try_reserve_exact(len).map_err(|e| full().with_source(e))?;
        bytes.resize(len, 0u8);
        let mut done = 0;
        while done < len {
            let rest = &mut bytes[done..];
            let (at, room) = (done as u64, rest.len() as u64);
            // SAFETY: as above; the buffer has as many bytes as are said.
            let read = unsafe { (self.read)(self.user, name.as_ptr(), at, rest.as_mut_ptr().cast(), room) };
            match usize::try_from(read) {
                Ok(n) if n > 0 && n <= rest.len() => done += n,
                _ => {
                    let message = format!("expected 1..={room} bytes at {at}, the callback returned {read}");
                    return Err(Error::new(ErrorKind::Io, message).at(place()));
                }
            }
        }
        Ok(Some(bytes))
    }
}
