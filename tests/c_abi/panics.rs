//! What a defect inside the library does: its session is closed, everything else goes on.
//!
//! The panic is provoked by a hook that only Rust sees, so these tests call the C functions from Rust.

use std::ffi::{CStr, CString};
use std::ptr::{null, null_mut};

use sam3::ffi::*;

use crate::tools::fixture;

fn message(error: *mut sam3_error) -> String {
    // SAFETY: an error of a call that failed, freed here.
    unsafe {
        let text = CStr::from_ptr(sam3_error_message(error)).to_str().unwrap().to_owned();
        sam3_error_free(error);
        text
    }
}
