//! Statuses: the numbers of [`ErrorKind`], fixed for ever.

use std::ffi::c_char;

use crate::ErrorKind;

/// It worked.
pub const SAM3_OK: i32 = 0;
/// An argument is wrong: NULL or misaligned, an unknown enum value, a prompt outside the picture, a buffer too short.
pub const SAM3_INVALID_ARGUMENT: i32 = 1;
/// A file could not be read, or a reader callback failed.
pub const SAM3_IO: i32 = 2;
/// A checkpoint, its configuration or its tokenizer is damaged or does not fit together.
pub const SAM3_CHECKPOINT: i32 = 3;
/// A picture could not be decoded, or exceeds the pixel limit.
pub const SAM3_IMAGE: i32 = 4;
/// The input is well-formed, but this build or this engine has no support for it.
pub const SAM3_UNSUPPORTED: i32 = 5;
/// Memory of the host or of the device ran out.
pub const SAM3_OUT_OF_MEMORY: i32 = 6;
/// `sam3_cancel`, `sam3_job_cancel` or a progress callback stopped the call.
pub const SAM3_CANCELLED: i32 = 7;
/// Another call is running on a handle that takes one at a time.
pub const SAM3_BUSY: i32 = 8;
/// The compute device or its driver failed, or is not there.
pub const SAM3_DEVICE: i32 = 9;
/// A defect of sam3, or a session that met one before. Please report it.
pub const SAM3_INTERNAL: i32 = 10;

// A kind and its number are one decision, made in `ErrorKind`.
const _: () = {
    assert!(SAM3_INVALID_ARGUMENT == ErrorKind::InvalidArgument as i32);
    assert!(SAM3_IO == ErrorKind::Io as i32);
    assert!(SAM3_CHECKPOINT == ErrorKind::Checkpoint as i32);
    assert!(SAM3_IMAGE == ErrorKind::Image as i32);
    assert!(SAM3_UNSUPPORTED == ErrorKind::Unsupported as i32);
    assert!(SAM3_OUT_OF_MEMORY == ErrorKind::OutOfMemory as i32);
    assert!(SAM3_CANCELLED == ErrorKind::Cancelled as i32);
    assert!(SAM3_BUSY == ErrorKind::Busy as i32);
    assert!(SAM3_DEVICE == ErrorKind::Device as i32);
    assert!(SAM3_INTERNAL == ErrorKind::Internal as i32);
};

/// The name of a status without its prefix, "INVALID_ARGUMENT"; "UNKNOWN" for numbers of a newer library. The string is
/// static. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn sam3_status_name(status: i32) -> *const c_char {
    let name = match status {
        SAM3_OK => c"OK",
        SAM3_INVALID_ARGUMENT => c"INVALID_ARGUMENT",
        SAM3_IO => c"IO",
        SAM3_CHECKPOINT => c"CHECKPOINT",
        SAM3_IMAGE => c"IMAGE",
        SAM3_UNSUPPORTED => c"UNSUPPORTED",
        SAM3_OUT_OF_MEMORY => c"OUT_OF_MEMORY",
        SAM3_CANCELLED => c"CANCELLED",
        SAM3_BUSY => c"BUSY",
        SAM3_DEVICE => c"DEVICE",
        SAM3_INTERNAL => c"INTERNAL",
        _ => c"UNKNOWN",
    };
    name.as_ptr()
}
