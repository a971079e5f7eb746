//! What all requests share, and the doors they pass: how many may be in the house, how many bytes they may bring, how
//! many of them may use the CPU beside the sessions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::body::{Body, Bytes};
use axum::http::{Request, header};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::addresses::is_public;
use super::error::{ApiError, ApiResult};
use super::fetch::Fetch;
use super::files::Files;
use super::log::{Log, timestamp};
use super::lru::Lru;
use super::metrics::Metrics;
use super::options::Options;
use super::pictures::Pictures;
use super::pool::{Pool, Ticket, Times};
use super::queue::Requests;
use super::random::Keys;
use crate::{LowResMask, Model, Result};

/// Bytes of mask logits that are kept for rounds of clicks; at the published size one takes 332 kB.
const LOGITS_BYTES: usize = 64 << 20;

/// Unit of the budget for bodies: semaphores count in `u32`.
const BUDGET_UNIT: usize = 1024;

/// Most webhooks that are pending. Each may be for two hours.
const MAX_DELIVERIES: usize = 256;

/// How long a refusal takes. Who has no patience and asks again at once asks ten times a second then; refusals by the
/// ten thousand took half of the cores away from those who had a place.
const REFUSING: Duration = Duration::from_millis(100);

/// Most lines of a request's log.
const MAX_LINES: usize = 200;

/// The server's state.
pub struct App {
    pub options: Options,
    pub model: Model,
    pub pool: Pool,
    pub pictures: Pictures,
    pub files: Files,
    pub requests: Requests,
    pub logits: Mutex<Lru<String, LowResMask>>,
    pub metrics: Metrics,
    pub log: Log,
    pub keys: Keys,
    pub fetch: Fetch,
    /// Set when the server has been told to stop.
    pub draining: AtomicBool,
    /// Webhooks that are being told, or will be told again.
    pub deliveries: Arc<Semaphore>,
    /// Places for requests, waiting ones included.
    door: Arc<Semaphore>,
    /// Bytes of bodies.
    budget: Arc<Semaphore>,
    /// Work on the CPU beside the sessions: decoding, drawing, compressing.
    cpu: Arc<Semaphore>,
}

/// A request's place in the house. Whoever holds it may bring work.
#[derive(Debug)]
pub struct Place {
    _door: OwnedSemaphorePermit,
}

/// A body with its share of the budget, which it gives back when it is dropped.
pub struct Intake {
    pub bytes: Bytes,
    _budget: Vec<OwnedSemaphorePermit>,
}

impl App {
    pub fn new(model: Model, options: Options) -> Result<Self> {
        options.check()?;
        let log = Log { on: options.log };
        let io = |e| crate::Error::new(crate::ErrorKind::Io, "cannot start the sessions").with_source(e);
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            pool: Pool::start(&model, options.sessions).map_err(io)?,
            pictures: Pictures::new(options.cache_bytes),
            files: Files::open(options.dir.as_deref(), options.file_bytes, options.lifetime)?,
            requests: Requests::new(options.lifetime),
            logits: Mutex::new(Lru::new(LOGITS_BYTES, Some(options.lifetime))),
            metrics: Metrics::default(),
            log,
            keys: Keys::new(&options.api_keys),
            fetch: Fetch::new(options.allow_fetch, if options.fetch_private { |_| true } else { is_public }),
            draining: AtomicBool::new(false),
            deliveries: Arc::new(Semaphore::new(MAX_DELIVERIES)),
            door: Arc::new(Semaphore::new(options.sessions + options.queue)),
            budget: Arc::new(Semaphore::new(options.bodies_bytes / BUDGET_UNIT)),
            cpu: Arc::new(Semaphore::new(cores.max(2))),
            model,
            options,
        })
    }

    /// A request's place and its body. Where there is no place the body is not read; but the place is taken only when
    /// the body is there, so that slow senders keep nobody out.
    pub async fn enter(&self, request: Request<Body>) -> ApiResult<(Place, Intake)> {
        drop(self.admit().await?);
        let body = self.body(request).await?;
        Ok((self.admit().await?, body))
    }

    /// A place for one more request, or 429, after [`REFUSING`], with the time after which there may be one.
    pub async fn admit(&self) -> ApiResult<Place> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(ApiError::draining());
        }
        match self.door.clone().try_acquire_owned() {
            Ok(permit) => Ok(Place { _door: permit }),
            Err(_) => {
                self.metrics.refused();
                tokio::time::sleep(REFUSING).await;
                Err(ApiError::busy(self.patience()))
            }
        }
    }

    /// Seconds until a place is likely to be free: one job of the mean length, as the sessions share them.
    fn patience(&self) -> u64 {
        let mean = self.pool.load().mean.as_secs_f64() / self.pool.sessions() as f64;
        mean.ceil().clamp(1.0, 60.0) as u64
    }

    /// Requests that are in the house.
    pub fn inside(&self) -> usize {
        self.options.sessions + self.options.queue - self.door.available_permits()
    }

    /// Waits until nobody is in the house.
    pub async fn empty(&self) {
        let all = u32::try_from(self.options.sessions + self.options.queue).unwrap_or(u32::MAX);
        // Fails only if the semaphore were closed, which it never is.
        let _ = self.door.acquire_many(all).await;
    }

    /// Reads a request's body within the limits of size, time and budget.
    pub async fn body(&self, request: Request<Body>) -> ApiResult<Intake> {
        let limit = self.options.max_body;
        let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|n| n > limit as u64) {
            return Err(ApiError::too_large(limit));
        }
        let mut body = request.into_body();
        let mut bytes: Vec<u8> = Vec::new();
        let mut permits: Vec<OwnedSemaphorePermit> = Vec::new();
        let mut paid = 0;
        let read = async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| ApiError::bad_request("the request's body is broken"))?;
                let Ok(data) = frame.into_data() else { continue };
                let length = bytes.len() + data.len();
                if length > limit {
                    return Err(ApiError::too_large(limit));
                }
                if length > paid {
                    // Doubling keeps permits few; what arrives last is paid to the end.
                    let want = length.max(paid * 2).min(limit).div_ceil(BUDGET_UNIT) - paid / BUDGET_UNIT;
                    let n = u32::try_from(want).map_err(|_| ApiError::too_large(limit))?;
                    let permit = self.budget.clone().try_acquire_many_owned(n);
                    permits.push(permit.map_err(|_| {
                        self.metrics.refused();
                        ApiError::busy(self.patience())
                    })?);
                    paid = paid / BUDGET_UNIT * BUDGET_UNIT + want * BUDGET_UNIT;
                }
                bytes.extend_from_slice(&data);
            }
            Ok(())
        };
        match tokio::time::timeout(self.options.body_timeout, read).await {
            Ok(result) => result?,
            Err(_) => return Err(ApiError::slow_body()),
        }
        Ok(Intake { bytes: bytes.into(), _budget: permits })
    }

    /// Runs work that takes a CPU for a while on a thread for such work, when one is free.
    pub async fn blocking<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> ApiResult<T> {
        // Never closed.
        let permit = self.cpu.clone().acquire_owned().await.map_err(|_| ApiError::internal())?;
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            f()
        });
        task.await.map_err(|e| {
            self.metrics.panicked();
            ApiError::internal().because(e.to_string())
        })
    }

    /// Keeps mask logits for another round, and returns the name they are asked for by.
    pub fn keep_logits(&self, logits: &LowResMask) -> String {
        let name = super::random::id();
        let mut kept = self.logits.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = kept.put(name.clone(), logits.clone(), size_of_val(logits.logits()));
        drop(kept);
        drop(gone);
        name
    }
}

/// One request's work: its ticket, its deadline, its log. Dropping it stops the work.
pub struct Work {
    pub ticket: Arc<Ticket>,
    pub start: Instant,
    /// What URLs of files begin with: `http://127.0.0.1:8333`.
    pub base: String,
    pub notes: Arc<Notes>,
}

impl Work {
    pub fn new(base: String, deadline: Instant, notes: Arc<Notes>) -> Self {
        Self { ticket: Ticket::until(deadline), start: Instant::now(), base, notes }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.ticket.stop();
    }
}

/// What a request has to say about itself while and after it runs.
#[derive(Default)]
pub struct Notes(Mutex<(Vec<Line>, Times)>);

/// A line of a request's log, in fal's form.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Line {
    pub message: String,
    pub level: &'static str,
    pub source: &'static str,
    pub timestamp: String,
}

impl Notes {
    /// Adds a line.
    pub fn say(&self, message: impl Into<String>) {
        let line =
            Line { message: message.into(), level: "INFO", source: "sam3", timestamp: timestamp(SystemTime::now()) };
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.0.len() < MAX_LINES {
            inner.0.push(line);
        }
    }

    /// Adds times of stages.
    pub fn times(&self, times: &[(&'static str, Duration)]) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, time) in times {
            match inner.1.iter_mut().find(|(n, _)| n == name) {
                Some((_, sum)) => *sum += *time,
                None => inner.1.push((name, *time)),
            }
        }
    }

    /// Lines from number `from` on.
    pub fn lines(&self, from: usize) -> Vec<Line> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0.get(from..).unwrap_or_default().to_vec()
    }

    /// Seconds per stage, in the order they first ran.
    pub fn timings(&self) -> serde_json::Value {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = |t: &Duration| (t.as_secs_f64() * 1e6).round() / 1e6;
        inner
            .1
            .iter()
            .map(|(name, t)| ((*name).to_owned(), seconds(t).into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}
