//! What a defect inside the library does: its session is closed, everything else goes on.
//!
//! The panic is provoked by a hook that only Rust sees, so these tests call the C functions from Rust.

use std::ffi::{CStr, CString};
use std::ptr::{null, null_mut};

use sam3::ffi::*;

use crate::tools::fixture;

/// Status and message of a call that failed.
fn failure(status: i32, error: *mut sam3_error) -> (i32, String) {
    // SAFETY: an error of a call that failed, freed here.
    unsafe {
        assert_eq!(sam3_error_status(error), status);
        let text = CStr::from_ptr(sam3_error_message(error)).to_str().unwrap().to_owned();
        sam3_error_free(error);
        (status, text)
    }
}

struct Host {
    model: *mut sam3_model,
    session: *mut sam3_session,
    picture: CString,
}

impl Host {
    fn new() -> Self {
        let path = CString::new(fixture().to_str().unwrap()).unwrap();
        let picture = CString::new(fixture().join("input.png").to_str().unwrap()).unwrap();
        let (mut model, mut session) = (null_mut(), null_mut());
        // SAFETY: strings and variables that live through the calls.
        unsafe {
            assert_eq!(sam3_model_open(path.as_ptr(), null(), &mut model, null_mut()), SAM3_OK);
            assert_eq!(sam3_session_new(model, &mut session, null_mut()), SAM3_OK);
        }
        Self { model, session, picture }
    }

    fn encode(&self, session: *mut sam3_session) -> (i32, *mut sam3_image, *mut sam3_error) {
        let (mut image, mut error) = (null_mut(), null_mut());
        // SAFETY: a live session, and variables that live through the call.
        let status = unsafe { sam3_encode_file(session, self.picture.as_ptr(), &mut image, &mut error) };
        (status, image, error)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: made by `new`, used no more.
        unsafe {
            sam3_session_free(self.session);
            sam3_model_free(self.model);
        }
    }
}

#[test]
fn a_panic_closes_its_session_and_nothing_else() {
    let host = Host::new();
    // SAFETY: a live session.
    unsafe { panic_at_next_step(host.session) };
    let (status, image, error) = host.encode(host.session);
    assert!(image.is_null());
    let (status, message) = failure(status, error);
    assert!(status == SAM3_INTERNAL && message.contains("a panic that a test asked for"), "{status} {message}");
    // For good, and it says why.
    for _ in 0..2 {
        let (status, image, error) = host.encode(host.session);
        assert!(image.is_null());
        let (status, message) = failure(status, error);
        assert!(status == SAM3_INTERNAL && message.contains("free it"), "{status} {message}");
    }
    // Its model works, and so does another session of it.
    let mut other = null_mut();
    // SAFETY: live handles.
    unsafe {
        assert_eq!(sam3_session_new(host.model, &mut other, null_mut()), SAM3_OK);
        let (status, image, _) = host.encode(other);
        assert_eq!(status, SAM3_OK);
        sam3_image_free(image);
        sam3_session_free(other);
    }
}

#[test]
fn a_panic_in_a_job_is_its_outcome() {
    let host = Host::new();
    let (status, image, _) = host.encode(host.session);
    assert_eq!(status, SAM3_OK);
    let (mut prompt, mut job, mut result, mut error) = (null_mut(), null_mut(), null_mut(), null_mut());
    // SAFETY: live handles, and variables that live through the calls.
    unsafe {
        assert_eq!(sam3_prompt_new_concept(c"cat".as_ptr(), &mut prompt, null_mut()), SAM3_OK);
        panic_at_next_step(host.session);
        let prompts = [prompt.cast_const()];
        let status = sam3_submit_segment(host.session, image, prompts.as_ptr(), 1, null(), &mut job, null_mut());
        assert_eq!(status, SAM3_OK);
        let status = sam3_job_take(job, null_mut(), &mut result, &mut error);
        let (status, message) = failure(status, error);
        assert!(status == SAM3_INTERNAL && message.contains("a test asked for"), "{status} {message}");
        assert!(result.is_null());
        let status = sam3_segment(host.session, image, prompts.as_ptr(), 1, null(), &mut result, null_mut());
        assert_eq!(status, SAM3_INTERNAL);
        sam3_job_free(job);
        // The picture is none the worse: another session answers on it.
        let mut other = null_mut();
        assert_eq!(sam3_session_new(host.model, &mut other, null_mut()), SAM3_OK);
        let status = sam3_segment(other, image, prompts.as_ptr(), 1, null(), &mut result, null_mut());
        assert_eq!(status, SAM3_OK);
        sam3_result_free(result);
        sam3_session_free(other);
        sam3_image_free(image);
        sam3_prompt_free(prompt);
    }
}
