//! Pictures the model has looked at, by the hash of their files.
//!
//! Looking is most of the work, and prompts on one picture come in series. So embeddings are kept, those used last
//! before others, within a limit of bytes. Requests that come while a picture is being looked at wait for that one look
//! instead of ordering another; the look stops only when the last of them has gone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::app::App;
use super::error::{ApiError, ApiResult};
use super::lru::Lru;
use super::pool::{Failure, Ticket, Times};
use super::random::hex_digest;
use crate::ImageEmbedding;
use crate::image::{DecodeLimits, Picture};

/// A picture the model has looked at.
#[derive(Debug)]
pub struct Looked {
    /// The first half of the SHA-256 of the file, in hex: whoever knows it has had the file, or was told.
    pub id: String,
    pub picture: Picture,
    pub embedding: ImageEmbedding,
    /// Its coarsest feature map, where somebody asked for it.
    pub vector: OnceLock<Vec<f32>>,
    /// What the look took.
    pub times: Times,
}

impl Looked {
    fn bytes(&self) -> usize {
        self.picture.pixels().len() + self.embedding.bytes() + self.vector.get().map_or(0, |v| v.len() * 4)
    }
}

/// A look that is under way.
struct Flight {
    number: u64,
    ticket: Arc<Ticket>,
    waiters: usize,
    done: watch::Receiver<Option<ApiResult<Arc<Looked>>>>,
}

struct Inner {
    held: Lru<String, Arc<Looked>>,
    flights: HashMap<String, Flight>,
    next: u64,
}

/// The pictures.
pub struct Pictures {
    inner: Mutex<Inner>,
    hits: AtomicU64,
    joins: AtomicU64,
    looks: AtomicU64,
}

/// How a request came by its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It was there.
    Held,
    /// The model looked at it, for this request or for one that waited with it.
    Looked,
}

/// Counts of a cache since the start, and what it holds.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    pub hits: u64,
    pub joins: u64,
    pub looks: u64,
    pub held: usize,
    pub bytes: usize,
}

impl Pictures {
    /// Room for `limit` bytes of embeddings and their pictures.
    pub fn new(limit: usize) -> Self {
        let inner = Inner { held: Lru::new(limit, None), flights: HashMap::new(), next: 0 };
        Self { inner: Mutex::new(inner), hits: AtomicU64::new(0), joins: AtomicU64::new(0), looks: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The picture with this id, if it is still there.
    pub fn held(&self, id: &str) -> Option<Arc<Looked>> {
        let found = self.lock().held.get(id);
        if found.is_some() {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    pub fn counts(&self) -> Counts {
        let inner = self.lock();
        Counts {
            hits: self.hits.load(Ordering::Relaxed),
            joins: self.joins.load(Ordering::Relaxed),
            looks: self.looks.load(Ordering::Relaxed),
            held: inner.held.len(),
            bytes: inner.held.bytes(),
        }
    }

    /// The picture in `file`, looked at. `field` is where an error says it came from. With `vector`, its coarsest
    /// feature map is there, too.
    pub async fn look(
        app: &Arc<App>,
        file: Vec<u8>,
        field: &'static str,
        vector: bool,
    ) -> ApiResult<(Arc<Looked>, Came)> {
        let mut id = hex_digest(&file);
        id.truncate(32);
        if let Some(found) = app.pictures.held(&id).filter(|l| !vector || l.vector.get().is_some()) {
            return Ok((found, Came::Held));
        }
        // A look with the vector is another flight: it serves everybody, but not everybody's serves it.
        let key = if vector { format!("{id}+") } else { id.clone() };
        let (mut done, waiter) = {
            let mut inner = app.pictures.lock();
            match inner.flights.get_mut(&key) {
                Some(flight) => {
                    flight.waiters += 1;
                    app.pictures.joins.fetch_add(1, Ordering::Relaxed);
                    (flight.done.clone(), Waiter { app: app.clone(), key, number: flight.number })
                }
                None => {
                    inner.next += 1;
                    let number = inner.next;
                    let ticket = Ticket::until(Instant::now() + app.options.timeout);
                    let (send, done) = watch::channel(None);
                    let flight = Flight { number, ticket: ticket.clone(), waiters: 1, done: done.clone() };
                    inner.flights.insert(key.clone(), flight);
                    let (app, landing) = (app.clone(), key.clone());
                    let waiter = Waiter { app: app.clone(), key, number };
                    tokio::spawn(async move {
                        let result = take(&app, id, file, field, vector, &ticket).await;
                        app.pictures.land(&landing, number, &result);
                        // Nobody waits any more where this fails.
                        let _ = send.send(Some(result));
                    });
                    (done, waiter)
                }
            }
        };
        let result = match done.wait_for(Option::is_some).await {
            Ok(value) => value.clone().unwrap_or_else(|| Err(ApiError::internal())),
            // The task is gone without a word: it panicked.
            Err(_) => Err(ApiError::internal()),
        };
        drop(waiter);
        result.map(|looked| (looked, Came::Looked))
    }

    /// Ends flight `number` with its result.
    fn land(&self, key: &str, number: u64, result: &ApiResult<Arc<Looked>>) {
        let mut inner = self.lock();
        if inner.flights.get(key).is_some_and(|f| f.number == number) {
            inner.flights.remove(key);
        }
        if let Ok(looked) = result {
            self.looks.fetch_add(1, Ordering::Relaxed);
            // What went for it is dropped outside the lock, with the statement's temporaries.
            let gone = inner.held.put(looked.id.clone(), looked.clone(), looked.bytes());
            drop(inner);
            drop(gone);
        }
    }
}

/// One request's interest in a flight.
struct Waiter {
    app: Arc<App>,
    key: String,
    number: u64,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut inner = self.app.pictures.lock();
        let Some(flight) = inner.flights.get_mut(&self.key).filter(|f| f.number == self.number) else { return };
        flight.waiters -= 1;
        if flight.waiters == 0 {
            // Taken off the board under the same lock, so that a newcomer starts afresh.
            flight.ticket.stop();
            inner.flights.remove(&self.key);
        }
    }
}

/// Decodes and encodes.
async fn take(
    app: &Arc<App>,
    id: String,
    file: Vec<u8>,
    field: &'static str,
    vector: bool,
    ticket: &Arc<Ticket>,
) -> ApiResult<Arc<Looked>> {
    let limits = limits(app.options.max_pixels);
    let decoded = app.blocking(move || {
        let start = Instant::now();
        Picture::decode_with(&file, &limits).map(|p| (p, start.elapsed()))
    });
    let (picture, decode) = decoded.await?.map_err(|e| ApiError::picture(&e, field))?;
    let (tx, rx) = std::sync::mpsc::channel();
    let run = app.pool.run(ticket, move |session| {
        if vector {
            session.on_trace(move |name, values| {
                if name == "neck.2" || name == "tracker_neck.2" {
                    // The receiver outlives the job.
                    let _ = tx.send(values.to_vec());
                }
            });
        }
        let result = session.encode(&picture.view());
        session.off_trace();
        Ok((result?, picture))
    });
    let ((embedding, picture), mut times) = run.await.map_err(|f| failed(f, field))?;
    times.insert(0, ("decode", decode));
    let looked = Looked { id, picture, embedding, vector: OnceLock::new(), times };
    if vector {
        let values = rx.try_iter().next().ok_or_else(ApiError::internal)?;
        let _ = looked.vector.set(values);
    }
    Ok(Arc::new(looked))
}

/// Limits for pictures from strangers: the decoder's own, and the server's on pixels.
pub fn limits(max_pixels: u64) -> DecodeLimits {
    let mut limits = DecodeLimits::default();
    limits.max_pixels = max_pixels.min(limits.max_pixels);
    limits
}

/// What a job that failed is to its caller.
pub fn failed(failure: Failure, field: &str) -> ApiError {
    match failure {
        Failure::Engine(e) => ApiError::engine(&e, field),
        Failure::Panicked => ApiError::internal().because("a session panicked and was replaced"),
        Failure::Stopped => ApiError::cancelled(),
    }
}

/// The sum of all stages.
pub fn total(times: &Times) -> Duration {
    times.iter().map(|(_, t)| *t).sum()
}
