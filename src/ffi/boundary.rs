//! What every call goes through: pointers become references or errors, panics become errors, errors become a status.

use std::any::Any;
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::sam3_error;
use super::status::SAM3_OK;
use crate::{Error, ErrorKind, Result};

/// Runs one call: `*error` becomes NULL or what went wrong, the status says which.
///
/// # Safety
/// `error` is as the module's text demands.
pub(super) unsafe fn call(error: *mut *mut sam3_error, body: impl FnOnce() -> Result<()>) -> i32 {
    // A misaligned `error` cannot hold a message, so the status alone has to tell.
    // SAFETY: handed on from the caller.
    let Ok(slot) = (unsafe { optional_out(error, "error") }) else { return ErrorKind::InvalidArgument as i32 };
    let (status, found) = match fenced(body) {
        Ok(()) => (SAM3_OK, std::ptr::null_mut()),
        Err(e) => (e.kind() as i32, Box::into_raw(Box::new(sam3_error::new(&e)))),
    };
    match slot {
        Some(slot) => _ = slot.write(found),
        None if found.is_null() => {}
        // SAFETY: made from a box above, and given to nobody.
        None => drop(unsafe { Box::from_raw(found) }),
    }
    status
}

/// Runs `body`; a panic becomes an error of kind `Internal`.
pub(super) fn fenced<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    // Whoever may see state that a panic left half-changed poisons it: see `session`.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(defect(payload)))
}

/// Runs a call that cannot fail; a panic in it gives `fallback`.
pub(super) fn plainly<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    fenced(|| Ok(body())).unwrap_or(fallback)
}

/// The error that stands for a panic.
fn defect(payload: Box<dyn Any + Send>) -> Error {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => {
            // Its destructor is unknown, and might panic in turn.
            std::mem::forget(payload);
            "no message".to_owned()
        }
    };
    Error::new(ErrorKind::Internal, format!("a defect of sam3, please report it: {text}"))
}

fn check<T>(pointer: *const T, what: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(Error::invalid(format!("{what}: expected a pointer, found NULL")));
    }
    if !pointer.is_aligned() {
        let align = align_of::<T>();
        return Err(Error::invalid(format!("{what}: expected an address divisible by {align}, found {pointer:p}")));
    }
    Ok(())
}

/// The object behind a pointer that must not be NULL.
///
/// # Safety
/// As the module's text demands.
pub(super) unsafe fn given<'a, T: Sync>(pointer: *const T, what: &str) -> Result<&'a T> {
    check(pointer, what)?;
    // SAFETY: neither NULL nor misaligned, so the caller promises that it is alive; it is never borrowed mutably.
    Ok(unsafe { &*pointer })
}

/// The object behind a pointer, `None` for NULL.
///
/// # Safety
/// As the module's text demands.
pub(super) unsafe fn optional<'a, T: Sync>(pointer: *const T, what: &str) -> Result<Option<&'a T>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: handed on from the caller.
    unsafe { given(pointer, what) }.map(Some)
}

/// The caller's variable behind a pointer that must not be NULL.
///
/// # Safety
/// As the module's text demands; the variable may be uninitialised, and nothing else uses it during the call.
pub(super) unsafe fn out<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut MaybeUninit<T>> {
    check(pointer, what)?;
    // SAFETY: neither NULL nor misaligned, so the caller promises room for a `T` that is theirs alone.
    Ok(unsafe { &mut *pointer.cast() })
}

/// The caller's variable for a new handle, NULL until there is one.
///
/// # Safety
/// As [`out`].
pub(super) unsafe fn handle_out<'a, T>(pointer: *mut *mut T, what: &str) -> Result<&'a mut *mut T> {
    // SAFETY: handed on from the caller.
    Ok(unsafe { out(pointer, what) }?.write(std::ptr::null_mut()))
}

/// The caller's variable behind a pointer, `None` for NULL.
///
/// # Safety
/// As [`out`].
pub(super) unsafe fn optional_out<'a, T>(pointer: *mut T, what: &str) -> Result<Option<&'a mut MaybeUninit<T>>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: handed on from the caller.
    unsafe { out(pointer, what) }.map(Some)
}

fn check_many<T>(pointer: *const T, len: usize, what: &str) -> Result<()> {
    check(pointer, what)?;
    match len.checked_mul(size_of::<T>()) {
        Some(bytes) if bytes <= isize::MAX as usize => Ok(()),
        _ => Err(Error::invalid(format!("{what}: {len} elements exceed the address space"))),
    }
}

/// `len` elements; NULL is fine for none.
///
/// # Safety
/// As the module's text demands, for all `len` elements.
pub(super) unsafe fn many<'a, T>(pointer: *const T, len: usize, what: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check_many(pointer, len, what)?;
    // SAFETY: neither NULL nor misaligned nor larger than an object may be; the caller promises the elements.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// Room of the caller's for `len` bytes; NULL is fine for none.
///
/// # Safety
/// As the module's text demands, for all `len` bytes; they are initialised, and nothing else uses them meanwhile.
pub(super) unsafe fn room<'a>(pointer: *mut u8, len: usize, what: &str) -> Result<&'a mut [MaybeUninit<u8>]> {
    if len == 0 {
        return Ok(&mut []);
    }
    check_many(pointer, len, what)?;
    // SAFETY: neither NULL nor larger than an object may be; the caller promises the room, and `MaybeUninit` does not
    // ask what is in it.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer.cast(), len) })
}

/// A string that must not be NULL.
///
/// # Safety
/// As the module's text demands; the string ends with a NUL byte.
pub(super) unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str> {
    check(pointer, what)?;
    // SAFETY: not NULL; the caller promises a NUL-terminated string.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    bytes.to_str().map_err(|e| Error::invalid(format!("{what}: expected UTF-8")).with_source(e))
}

/// A string, `None` for NULL.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn optional_text<'a>(pointer: *const c_char, what: &str) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: handed on from the caller.
    unsafe { text(pointer, what) }.map(Some)
}

/// Gives an object away.
pub(super) fn give<T>(object: T) -> *mut T {
    Box::into_raw(Box::new(object))
}

/// Takes an object back and drops it; NULL and misaligned pointers are ignored.
///
/// # Safety
/// A pointer that is neither came from [`give`] and is used no more.
pub(super) unsafe fn release<T>(pointer: *mut T) {
    if check(pointer, "").is_ok() {
        // SAFETY: handed on from the caller.
        plainly((), || drop(unsafe { Box::from_raw(pointer) }));
    }
}
