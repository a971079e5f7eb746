//! What a failed call has to say.

use std::ffi::{CString, c_char};

use super::boundary::{optional, release};
use super::status::SAM3_OK;
use crate::Error;

/// Why a call failed. Made by the call, owned by the caller, freed with `sam3_error_free`. It never changes: any
/// thread may read it.
pub struct sam3_error {
    status: i32,
    message: CString,
}

impl sam3_error {
    pub(super) fn new(error: &Error) -> Self {
        Self { status: error.kind() as i32, message: c_string(&error.to_string()) }
    }
}

/// A C string of any text; NUL characters in it, which C would take for its end, become spaces.
pub(super) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

/// The status that the failed call returned; `SAM3_OK` for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_error_status(error: *const sam3_error) -> i32 {
    // SAFETY: the caller's promise, see the module's text.
    match unsafe { optional(error, "error") } {
        Ok(Some(error)) => error.status,
        _ => SAM3_OK,
    }
}

/// One English sentence that says what was expected, what was found, and where; UTF-8, lent until the error is freed;
/// "" for NULL, never NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_error_message(error: *const sam3_error) -> *const c_char {
    // SAFETY: the caller's promise, see the module's text.
    match unsafe { optional(error, "error") } {
        Ok(Some(error)) => error.message.as_ptr(),
        _ => c"".as_ptr(),
    }
}

/// Frees an error. NULL is ignored. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_error_free(error: *mut sam3_error) {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { release(error) }
}
