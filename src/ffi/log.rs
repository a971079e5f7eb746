//! What the library says about its work, to whoever asked.

use std::ffi::{c_char, c_void};

use super::error::c_string;

/// Nothing is logged: the default.
pub const SAM3_LOG_OFF: u32 = 0;
/// Calls that failed by a defect of sam3.
pub const SAM3_LOG_ERROR: u32 = 1;
/// Calls that failed otherwise, cancelled ones aside.
pub const SAM3_LOG_WARN: u32 = 2;
/// Models that were opened, and why not on a GPU where that was left open.
pub const SAM3_LOG_INFO: u32 = 3;
/// Every call with the time of its stages.
pub const SAM3_LOG_DEBUG: u32 = 4;

/// Takes a line of the log: its level, and UTF-8 text without a line end, lent for the length of the call. Called on
/// the thread that makes the logged call, a job's own thread for jobs, thus from several threads at once where several
/// are used. It must not throw, and may call whatever it likes; sessions in use answer `SAM3_BUSY`.
pub type sam3_log_fn = Option<unsafe extern "C" fn(user: *mut c_void, level: u32, message: *const c_char)>;

/// Where a model's log goes.
#[derive(Clone, Copy)]
pub(super) struct Log {
    pub level: u32,
    pub write: sam3_log_fn,
    pub user: *mut c_void,
}

// SAFETY: `user` is never looked at here, only handed to `write`, of which the header demands that it may be called
// from several threads.
unsafe impl Send for Log {}
// SAFETY: as above.
unsafe impl Sync for Log {}

impl Default for Log {
    fn default() -> Self {
        Self { level: SAM3_LOG_OFF, write: None, user: std::ptr::null_mut() }
    }
}

impl Log {
    /// Writes a line if somebody wants lines of this level; the text is only made then.
    pub fn line(&self, level: u32, text: impl FnOnce() -> String) {
        if level > self.level {
            return;
        }
        if let Some(write) = self.write {
            let text = c_string(&text());
            // SAFETY: the caller gave a function of this type with the `user` it wants; the text outlives the call.
            unsafe { write(self.user, level, text.as_ptr()) }
        }
    }

    /// Writes down a failure at the level of its kind.
    pub fn failure(&self, call: &str, error: &crate::Error) {
        let level = match error.kind() {
            crate::ErrorKind::Cancelled => SAM3_LOG_DEBUG,
            crate::ErrorKind::Internal => SAM3_LOG_ERROR,
            _ => SAM3_LOG_WARN,
        };
        self.line(level, || format!("{call}: {error}"));
    }
}
