//! Calls on a thread of their own, for hosts that must not wait: a render loop, a user interface.
//!
//! One job is one thread, joined when the job is freed. Starting it costs some twenty microseconds, nothing beside what
//! it does, and between jobs no thread is left behind.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::boundary::{call, fenced, give, given, handle_out, optional, optional_out, release};
use super::error::sam3_error;
use super::image::{Pixels, Seen, sam3_image, sam3_image_view};
use super::options::sam3_segment_options;
use super::prompt::sam3_prompt;
use super::result::{Answer, sam3_result};
use super::session::{Taken, encode, prompts, sam3_session, segment, segment_options, shared};
use crate::{Error, ErrorKind, Result};

/// For `sam3_job_wait`: as long as it takes.
pub const SAM3_WAIT_FOREVER: u32 = u32::MAX;

/// A call that runs on a thread of its own. It holds its session until it is done, and needs no other handle: all may be
/// freed before it. Any thread may use it.
pub struct sam3_job {
    state: Arc<State>,
    cancel: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Made {
    image: Option<Arc<Seen>>,
    answer: Option<Arc<Answer>>,
}

enum Phase {
    Running,
    Done(Result<Made>),
    Taken,
}

struct State {
    phase: Mutex<Phase>,
    done: Condvar,
}

impl State {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The phase once the job is done, or `limit` is over.
    fn wait(&self, limit: Option<Duration>) -> MutexGuard<'_, Phase> {
        let running = |phase: &mut Phase| matches!(phase, Phase::Running);
        match limit {
            None => self.done.wait_while(self.phase(), running).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                let waited = self.done.wait_timeout_while(self.phase(), limit, running);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}

/// Starts `work` on a thread of its own.
fn submit(taken: Taken, work: impl FnOnce(Taken) -> Result<Made> + Send + 'static) -> Result<sam3_job> {
    let state = Arc::new(State { phase: Mutex::new(Phase::Running), done: Condvar::new() });
    let (told, cancel) = (state.clone(), taken.cancel.clone());
    let thread = std::thread::Builder::new().name("sam3-job".into()).spawn(move || {
        // `work` gives the session back before anybody hears that the job is done, so that the next job finds it.
        let outcome = fenced(|| work(taken));
        *told.phase() = Phase::Done(outcome);
        told.done.notify_all();
    });
    let thread = thread.map_err(|e| Error::new(ErrorKind::OutOfMemory, "expected to start a thread").with_source(e))?;
    Ok(sam3_job { state, cancel, thread: Some(thread) })
}

impl Drop for sam3_job {
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panics are outcomes.
            let _ = thread.join();
        }
    }
}

/// Begins `sam3_encode` and returns. The pixels are copied first, so they may be freed or overwritten at once. `*out`
/// is the caller's, freed with `sam3_job_free`; NULL after a failure. Any thread.
///
/// Copying the pixels and starting a thread is all that this waits for. The session is free for the next call as soon as
/// the job is done, taken or not.
///
/// Failures here are those of arguments, `SAM3_BUSY` and `SAM3_OUT_OF_MEMORY`; `sam3_job_take` returns the others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_submit_encode(
    session: *mut sam3_session,
    view: *const sam3_image_view,
    out: *mut *mut sam3_job,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, session, pixels) = unsafe { (handle_out(out, "out")?, shared(session)?, Pixels::given(view)?) };
        // Before the copy, which a session in use would make in vain.
        let taken = session.take()?;
        let (pixels, log) = (pixels.into_owned()?, taken.log());
        let job = submit(taken, move |taken| {
            let seen = taken.run("sam3_submit_encode", |s| encode(s, &pixels.view()?, log))?;
            Ok(Made { image: Some(seen), answer: None })
        });
        *out = give(job?);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Begins `sam3_segment` and returns. Otherwise like `sam3_submit_encode`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_submit_segment(
    session: *mut sam3_session,
    image: *const sam3_image,
    prompts: *const *const sam3_prompt,
    count: usize,
    options: *const sam3_segment_options,
    out: *mut *mut sam3_job,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, session, image, prompts, options) = unsafe {
            (
                handle_out(out, "out")?,
                shared(session)?,
                given(image, "image")?.0.clone(),
                self::prompts(prompts, count)?,
                segment_options(options)?,
            )
        };
        let taken = session.take()?;
        let log = taken.log();
        let job = submit(taken, move |taken| {
            let answer = taken.run("sam3_submit_segment", |s| segment(s, &image, &prompts, &options, log))?;
            Ok(Made { image: None, answer: Some(answer) })
        });
        *out = give(job?);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Begins `sam3_run` and returns. Otherwise like `sam3_submit_encode`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_submit_run(
    session: *mut sam3_session,
    view: *const sam3_image_view,
    prompts: *const *const sam3_prompt,
    count: usize,
    options: *const sam3_segment_options,
    out: *mut *mut sam3_job,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, session, pixels, prompts, options) = unsafe {
            (
                handle_out(out, "out")?,
                shared(session)?,
                Pixels::given(view)?,
                self::prompts(prompts, count)?,
                segment_options(options)?,
            )
        };
        let taken = session.take()?;
        let (pixels, log) = (pixels.into_owned()?, taken.log());
        let job = submit(taken, move |taken| {
            let (seen, answer) = taken.run("sam3_submit_run", |s| {
                let seen = encode(s, &pixels.view()?, log)?;
                let answer = segment(s, &seen, &prompts, &options, log)?;
                Ok((seen, answer))
            })?;
            Ok(Made { image: Some(seen), answer: Some(answer) })
        });
        *out = give(job?);
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets `*done` to 1 if the job is done, else to 0, at once. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_job_poll(job: *const sam3_job, done: *mut u32, error: *mut *mut sam3_error) -> i32 {
    // SAFETY: handed on from the caller.
    unsafe { sam3_job_wait(job, 0, done, error) }
}

/// Waits until the job is done, but at most `milliseconds`, `SAM3_WAIT_FOREVER` for no limit, and sets `*done` to 1 if
/// it is, else to 0. `done` may be NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_job_wait(
    job: *const sam3_job,
    milliseconds: u32,
    done: *mut u32,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (job, done) = unsafe { (given(job, "job")?, optional_out(done, "done")?) };
        let limit = (milliseconds != SAM3_WAIT_FOREVER).then(|| Duration::from_millis(milliseconds.into()));
        let over = !matches!(*job.state.wait(limit), Phase::Running);
        if let Some(done) = done {
            done.write(over.into());
        }
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Waits until the job is done and hands out what it made: the status and the error are those that the call itself would
/// have returned. `*image` and `*result` become the caller's, freed with `sam3_image_free` and `sam3_result_free`; NULL
/// where the job makes none. Either pointer may be NULL if it is not wanted. Once only: a second time is
/// `SAM3_INVALID_ARGUMENT`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_job_take(
    job: *mut sam3_job,
    image: *mut *mut sam3_image,
    result: *mut *mut sam3_result,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (job, image, result) = unsafe {
            (given(job.cast_const(), "job")?, optional_out(image, "image")?, optional_out(result, "result")?)
        };
        let image = image.map(|slot| slot.write(std::ptr::null_mut()));
        let result = result.map(|slot| slot.write(std::ptr::null_mut()));
        let made = match std::mem::replace(&mut *job.state.wait(None), Phase::Taken) {
            Phase::Done(outcome) => outcome?,
            _ => return Err(Error::invalid("job: expected one whose outcome was not taken yet")),
        };
        if let (Some(image), Some(seen)) = (image, made.image) {
            *image = give(sam3_image(seen));
        }
        if let (Some(result), Some(answer)) = (result, made.answer) {
            *result = give(sam3_result(answer));
        }
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Stops the job: its outcome is `SAM3_CANCELLED`, unless it is past its last step. Returns at once. NULL is ignored.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_job_cancel(job: *const sam3_job) {
    // SAFETY: the caller's promise, see the module's text.
    if let Ok(Some(job)) = unsafe { optional(job, "job") } {
        job.cancel.store(true, Ordering::Relaxed);
    }
}

/// Frees a job. NULL is ignored. One that is not done is stopped, and waited for until its next step: where that must
/// not be, call `sam3_job_cancel` and free it when `sam3_job_poll` says that it is done. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_job_free(job: *mut sam3_job) {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { release(job) }
}
