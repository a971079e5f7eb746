//! Weights that stay the host's.

use std::ffi::c_void;
use std::ptr::NonNull;

/// Takes back memory that was lent; `user` is what was handed over with it. It must not throw, and may free the memory.
pub type sam3_release_fn = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// The host's wish to be told, once, when its memory is needed no more: dropping this tells it.
pub(super) struct Release {
    function: sam3_release_fn,
    user: *mut c_void,
}

// SAFETY: `user` is never looked at here, only handed to `function`, of which the header says that any thread may call it.
unsafe impl Send for Release {}
// SAFETY: as above; a shared reference gives access to nothing.
unsafe impl Sync for Release {}

impl Release {
    pub fn new(function: sam3_release_fn, user: *mut c_void) -> Self {
        Self { function, user }
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        if let Some(function) = self.function {
            // SAFETY: the caller gave a function of this type with the `user` it wants, to be called once.
            unsafe { function(self.user) }
        }
    }
}

/// Memory of the host's, until it is dropped.
pub(super) struct Lent {
    bytes: NonNull<[u8]>,
    _release: Release,
}

// SAFETY: the bytes are only read, and the host leaves them alone until they are released.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl Lent {
    /// # Safety
    /// The bytes stay where and as they are until `release` is dropped.
    pub unsafe fn new(bytes: &[u8], release: Release) -> Self {
        Self { bytes: NonNull::from(bytes), _release: release }
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: made from a slice, which by the promise of `new` outlives `self`.
        unsafe { self.bytes.as_ref() }
    }
}
