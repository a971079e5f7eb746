//! Sessions: one caller's scratch memory, and the calls that use it.
//!
//! A session is never borrowed mutably across the boundary. A call takes the engine's session out of its slot and puts
//! it back at the end; a second call meanwhile finds the slot empty and is told so. After a panic nothing is put back.

use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::boundary::{call, fenced, give, given, handle_out, many, optional, optional_out, plainly, release, text};
use super::error::sam3_error;
use super::image::{Pixels, Seen, Times, sam3_image, sam3_image_view};
use super::log::{Log, SAM3_LOG_DEBUG};
use super::open::sam3_model;
use super::options::sam3_segment_options;
use super::prompt::sam3_prompt;
use super::result::{Answer, sam3_result};
use crate::image::{ImageView, Picture};
use crate::{Error, ErrorKind, Progress, Prompt, Result, SegmentOptions, Session, Stage};

/// A picture goes through the image encoder.
pub const SAM3_STAGE_ENCODE_IMAGE: u32 = 0;
/// A phrase goes through the text encoder; phrases that the model met before skip this.
pub const SAM3_STAGE_ENCODE_TEXT: u32 = 1;
/// A concept is looked for.
pub const SAM3_STAGE_GROUND: u32 = 2;
/// Masks of a concept's instances are made.
pub const SAM3_STAGE_MASKS: u32 = 3;
/// An object is cut out.
pub const SAM3_STAGE_SEGMENT: u32 = 4;
/// A stage of a newer library.
pub const SAM3_STAGE_OTHER: u32 = 0xffff;

/// Told how far a call has come: `stage` is a `SAM3_STAGE_` constant, `fraction` the share of that stage that is done,
/// 0 to 1. Every number but 0 cancels the call. Called on the thread that makes the call, a job's own thread for jobs.
/// It must not throw; calls it makes on the same session are `SAM3_BUSY`.
pub type sam3_progress_fn = Option<unsafe extern "C" fn(user: *mut c_void, stage: u32, fraction: f32) -> i32>;

/// The scratch memory of one call at a time. Any thread may call; while a call or a job runs, further ones return
/// `SAM3_BUSY` at once. `sam3_cancel` and `sam3_session_free` are the exceptions. For several calls at once make several
/// sessions of one model: they share its weights.
pub struct sam3_session {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    slot: Mutex<Slot>,
    hooks: Arc<Hooks>,
    log: Log,
}

enum Slot {
    Idle(Box<Session>),
    Busy,
    Poisoned,
}

/// What the engine's session calls between steps.
#[derive(Default)]
struct Hooks {
    progress: Mutex<Callback>,
    /// Of the latest call: set once, that call stops; a later one has its own.
    cancel: Mutex<Arc<AtomicBool>>,
    /// For tests: the next step panics.
    panic: AtomicBool,
}

#[derive(Clone, Copy)]
struct Callback {
    call: sam3_progress_fn,
    user: *mut c_void,
}

impl Default for Callback {
    fn default() -> Self {
        Self { call: None, user: std::ptr::null_mut() }
    }
}

// SAFETY: `user` is never looked at here, only handed to `call`; the header says on which threads that happens.
unsafe impl Send for Callback {}

/// Nothing behind these locks is left half-changed by a panic: they are held for assignments.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hooks {
    /// Whether the call goes on.
    fn step(&self, progress: Progress) -> bool {
        assert!(!self.panic.swap(false, Ordering::Relaxed), "a panic that a test asked for");
        if locked(&self.cancel).load(Ordering::Relaxed) {
            return false;
        }
        let Callback { call, user } = *locked(&self.progress);
        let stage = match progress.stage {
            Stage::EncodeImage => SAM3_STAGE_ENCODE_IMAGE,
            Stage::EncodeText => SAM3_STAGE_ENCODE_TEXT,
            Stage::Ground => SAM3_STAGE_GROUND,
            Stage::Masks => SAM3_STAGE_MASKS,
            Stage::Segment => SAM3_STAGE_SEGMENT,
            #[allow(unreachable_patterns, reason = "the engine may get further stages")]
            _ => SAM3_STAGE_OTHER,
        };
        // SAFETY: the caller gave a function of this type with the `user` it wants. No lock is held.
        let stop = call.is_some_and(|f| unsafe { f(user, stage, progress.fraction) } != 0);
        // The callback may have cancelled, or another thread while it ran.
        !stop && !locked(&self.cancel).load(Ordering::Relaxed)
    }
}

/// The engine's session, taken out of its slot for one call.
pub(super) struct Taken {
    shared: Arc<Shared>,
    session: Option<Box<Session>>,
    pub cancel: Arc<AtomicBool>,
}

impl Shared {
    /// Begins a call, if none is running.
    pub fn take(self: &Arc<Self>) -> Result<Taken> {
        let mut slot = locked(&self.slot);
        match std::mem::replace(&mut *slot, Slot::Busy) {
            Slot::Idle(session) => {
                let cancel = Arc::<AtomicBool>::default();
                *locked(&self.hooks.cancel) = cancel.clone();
                Ok(Taken { shared: self.clone(), session: Some(session), cancel })
            }
            Slot::Busy => {
                let message = "session: expected no call in progress, found one; use a session per thread";
                Err(Error::new(ErrorKind::Busy, message))
            }
            Slot::Poisoned => {
                *slot = Slot::Poisoned;
                let message = "session: unusable since an earlier call met a defect of sam3; free it and make another";
                Err(Error::new(ErrorKind::Internal, message))
            }
        }
    }
}

impl Taken {
    /// Runs the call `name` and gives the session back; after a panic it is gone for good.
    pub fn run<T>(mut self, name: &str, f: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        let shared = self.shared.clone();
        let session = self.session.as_mut();
        // The inner result is the call's own, the outer one is an error only after a panic.
        let outcome = fenced(|| {
            let session = session.ok_or_else(|| Error::new(ErrorKind::Internal, "session: taken twice"))?;
            session.take_timings();
            Ok(f(session))
        });
        let result = match outcome {
            Ok(result) => result,
            Err(defect) => {
                let broken = self.session.take();
                *locked(&shared.slot) = Slot::Poisoned;
                // What the panic left half-done may panic again when it is dropped.
                plainly((), || drop(broken));
                Err(defect)
            }
        };
        drop(self);
        result.inspect_err(|e| shared.log.failure(name, e))
    }

    pub fn log(&self) -> Log {
        self.shared.log
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            *locked(&self.shared.slot) = Slot::Idle(session);
        }
    }
}

/// A session on a model. `*out` is the caller's, freed with `sam3_session_free`; NULL after a failure. Any thread. The
/// model's handle may be freed before it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_session_new(
    model: *const sam3_model,
    out: *mut *mut sam3_session,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, model) = unsafe { (handle_out(out, "out")?, given(model, "model")?) };
        let mut session = model.model.session();
        let hooks = Arc::<Hooks>::default();
        let called = hooks.clone();
        session.on_progress(move |progress| called.step(progress));
        let slot = Mutex::new(Slot::Idle(Box::new(session)));
        *out = give(sam3_session { shared: Arc::new(Shared { slot, hooks, log: model.log }) });
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Sets the progress callback of all later steps, NULL for none; `user` is handed to it as it is. Both have to stay
/// valid until they are replaced, or the session and its jobs are freed. A call that is running meanwhile may still be
/// in the old ones, until it returns. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_session_set_progress(
    session: *mut sam3_session,
    progress: sam3_progress_fn,
    user: *mut c_void,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let session = unsafe { given(session, "session") }?;
        *locked(&session.shared.hooks.progress) = Callback { call: progress, user };
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Stops the call or the job that runs on this session: it returns `SAM3_CANCELLED` at its next step, of which there
/// are some for every layer of the model. Without one, nothing happens; calls that begin later are not touched. NULL is
/// ignored. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_cancel(session: *const sam3_session) {
    // SAFETY: the caller's promise, see the module's text.
    if let Ok(Some(session)) = unsafe { optional(session, "session") } {
        locked(&session.shared.hooks.cancel).store(true, Ordering::Relaxed);
    }
}

/// Frees a session. NULL is ignored. A job that it runs goes on. No call may be running on another thread. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_session_free(session: *mut sam3_session) {
    // SAFETY: the caller's promise, see the module's text.
    unsafe { release(session) }
}

/// The session behind a handle.
///
/// # Safety
/// As the module's text demands.
pub(super) unsafe fn shared<'a>(session: *const sam3_session) -> Result<&'a Arc<Shared>> {
    // SAFETY: handed on from the caller.
    Ok(unsafe { &given(session, "session")?.shared })
}

/// Copies of the caller's prompts.
///
/// # Safety
/// As the module's text demands, for the array and all its handles.
pub(super) unsafe fn prompts(prompts: *const *const sam3_prompt, count: usize) -> Result<Vec<Prompt>> {
    // SAFETY: handed on from the caller.
    let handles = unsafe { many(prompts, count, "prompts") }?;
    // SAFETY: handed on from the caller.
    handles.iter().map(|&p| Ok(unsafe { given(p, "prompts[i]") }?.read())).collect()
}

/// The caller's options, or the defaults.
///
/// # Safety
/// As the module's text demands.
pub(super) unsafe fn segment_options(options: *const sam3_segment_options) -> Result<SegmentOptions> {
    // SAFETY: handed on from the caller.
    Ok(unsafe { optional(options, "options") }?.map(sam3_segment_options::read).unwrap_or_default())
}

/// Encodes a picture and takes the times of it.
pub(super) fn encode(session: &mut Session, view: &ImageView<'_>, log: Log) -> Result<Arc<Seen>> {
    let embedding = session.encode(view)?;
    let times = Times::new(&session.take_timings());
    log.line(SAM3_LOG_DEBUG, || format!("encoded {}x{} pixels: {}", view.width(), view.height(), times.line()));
    Ok(Arc::new(Seen { embedding, times }))
}

/// Answers prompts and takes the times of it.
pub(super) fn segment(
    session: &mut Session,
    image: &Seen,
    prompts: &[Prompt],
    options: &SegmentOptions,
    log: Log,
) -> Result<Arc<Answer>> {
    let found = session.segment(&image.embedding, prompts, options)?;
    let times = Times::new(&session.take_timings());
    let (count, asked) = (found.instances.len(), prompts.len());
    log.line(SAM3_LOG_DEBUG, || format!("found {count} instances for {asked} prompts: {}", times.line()));
    Ok(Arc::new(Answer::new(found, options, times)))
}

/// Looks at a picture once, for any number of prompts. `view` and its pixels are needed for the length of the call.
/// `*out` is the caller's, freed with `sam3_image_free`; NULL after a failure. Any thread, one call at a time.
///
/// Failures: `SAM3_INVALID_ARGUMENT`, `SAM3_CANCELLED`, `SAM3_BUSY`, `SAM3_OUT_OF_MEMORY`, `SAM3_DEVICE`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_encode(
    session: *mut sam3_session,
    view: *const sam3_image_view,
    out: *mut *mut sam3_image,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, session, pixels) = unsafe { (handle_out(out, "out")?, shared(session)?, Pixels::given(view)?) };
        let taken = session.take()?;
        let log = taken.log();
        *out = give(sam3_image(taken.run("sam3_encode", |s| encode(s, &pixels.view()?, log))?));
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Reads a picture file, turns it upright, and looks at it: JPEG, PNG, WebP, GIF (first frame), BMP, TIFF (first page),
/// and AVIF where `sam3_build_info()` says so, told apart by their content; at most 178,956,970 pixels, 65,535 a side.
/// `path` is UTF-8. Otherwise like `sam3_encode`.
///
/// Failures: besides, `SAM3_IO`, `SAM3_IMAGE`, `SAM3_UNSUPPORTED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_encode_file(
    session: *mut sam3_session,
    path: *const c_char,
    out: *mut *mut sam3_image,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, session, path) = unsafe { (handle_out(out, "out")?, shared(session)?, text(path, "path")?) };
        let taken = session.take()?;
        let log = taken.log();
        let image = taken.run("sam3_encode_file", |s| encode(s, &Picture::open(path)?.view(), log))?;
        *out = give(sam3_image(image));
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// `sam3_encode_file` with the bytes of a picture file, which are needed for the length of the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_encode_bytes(
    session: *mut sam3_session,
    bytes: *const u8,
    size: usize,
    out: *mut *mut sam3_image,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, session, bytes) = unsafe { (handle_out(out, "out")?, shared(session)?, many(bytes, size, "bytes")?) };
        let taken = session.take()?;
        let log = taken.log();
        let image = taken.run("sam3_encode_bytes", |s| encode(s, &Picture::decode(bytes)?.view(), log))?;
        *out = give(sam3_image(image));
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// Answers `count` prompts on one picture, at least one. Each is a question of its own: two phrases are two concepts,
/// and `sam3_instance.prompt` tells whose answer an instance is.
/// `options` may be NULL for the defaults. `*out` is the caller's, freed with `sam3_result_free`; NULL after a failure.
/// Any thread, one call at a time.
///
/// Failures: `SAM3_INVALID_ARGUMENT` also for prompts that are empty, outside the picture or too long, and for a picture
/// of another model; `SAM3_UNSUPPORTED` for prompts that this checkpoint has no weights for; `SAM3_CANCELLED`,
/// `SAM3_BUSY`, `SAM3_OUT_OF_MEMORY`, `SAM3_DEVICE`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_segment(
    session: *mut sam3_session,
    image: *const sam3_image,
    prompts: *const *const sam3_prompt,
    count: usize,
    options: *const sam3_segment_options,
    out: *mut *mut sam3_result,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, session, image, prompts, options) = unsafe {
            (
                handle_out(out, "out")?,
                shared(session)?,
                given(image, "image")?,
                self::prompts(prompts, count)?,
                segment_options(options)?,
            )
        };
        let taken = session.take()?;
        let log = taken.log();
        let answer = taken.run("sam3_segment", |s| segment(s, &image.0, &prompts, &options, log))?;
        *out = give(sam3_result(answer));
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// `sam3_encode` and `sam3_segment` in one. `image` may be NULL; otherwise `*image` is the picture for further prompts,
/// freed with `sam3_image_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sam3_run(
    session: *mut sam3_session,
    view: *const sam3_image_view,
    prompts: *const *const sam3_prompt,
    count: usize,
    options: *const sam3_segment_options,
    image: *mut *mut sam3_image,
    out: *mut *mut sam3_result,
    error: *mut *mut sam3_error,
) -> i32 {
    let body = || {
        // SAFETY: the caller's promise, see the module's text.
        let (out, image, session, pixels, prompts, options) = unsafe {
            (
                handle_out(out, "out")?,
                optional_out(image, "image")?,
                shared(session)?,
                Pixels::given(view)?,
                self::prompts(prompts, count)?,
                segment_options(options)?,
            )
        };
        let image = image.map(|slot| slot.write(std::ptr::null_mut()));
        let taken = session.take()?;
        let log = taken.log();
        let (seen, answer) = taken.run("sam3_run", |s| {
            let seen = encode(s, &pixels.view()?, log)?;
            let answer = segment(s, &seen, &prompts, &options, log)?;
            Ok((seen, answer))
        })?;
        if let Some(image) = image {
            *image = give(sam3_image(seen));
        }
        *out = give(sam3_result(answer));
        Ok(())
    };
    // SAFETY: the caller's promise, see the module's text.
    unsafe { call(error, body) }
}

/// For tests of what a defect does: the next step of a call on `session` panics. Not part of the C interface.
///
/// # Safety
/// `session` is a session that is alive.
#[doc(hidden)]
pub unsafe fn panic_at_next_step(session: *const sam3_session) {
    // SAFETY: the caller's promise.
    if let Ok(session) = unsafe { shared(session) } {
        session.hooks.panic.store(true, Ordering::Relaxed);
    }
}
