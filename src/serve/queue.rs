//! Requests that are submitted now and asked for later, in fal's protocol.
//!
//! A request is submitted and runs as a task of its own; its caller comes back for its status, a stream of it, its
//! result, or to cancel it. Its place in the house was taken when it was submitted, so a full house refuses submissions
//! as it refuses calls. Finished requests are kept for their lifetime, and within a limit of bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::app::{Notes, Work};
use super::error::{ApiError, ApiResult};

/// Most bytes of results that are kept; those with data URIs are large.
const RESULT_BYTES: usize = 256 << 20;

/// Most requests that are kept, finished ones included.
const MAX_REQUESTS: usize = 10_000;

/// A submitted request.
pub struct Submitted {
    /// `fal-ai/sam-3`: status and result are asked for under it, whatever the endpoint was.
    pub app_id: String,
    pub notes: Arc<Notes>,
    pub submitted: Instant,
    number: u64,
    state: watch::Sender<State>,
    work: Mutex<Option<Arc<Work>>>,
}

/// Where a request is.
#[derive(Clone, Debug)]
pub enum State {
    Waiting,
    Running,
    Done(Arc<Outcome>),
}

/// How a request ended.
#[derive(Debug)]
pub struct Outcome {
    pub result: ApiResult<Value>,
    /// From submission to the end.
    pub took: Duration,
    ended: Instant,
    bytes: usize,
}

#[derive(Default)]
struct Inner {
    known: HashMap<String, Arc<Submitted>>,
    next: u64,
}

/// The requests.
pub struct Requests {
    inner: Mutex<Inner>,
    lifetime: Duration,
}

/// What came of a wish to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    Requested,
    TooLate,
}

impl Requests {
    pub fn new(lifetime: Duration) -> Self {
        Self { inner: Mutex::default(), lifetime }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new request under `id`.
    pub fn submit(&self, id: &str, app_id: &str) -> Arc<Submitted> {
        let mut inner = self.lock();
        inner.next += 1;
        let request = Arc::new(Submitted {
            app_id: app_id.to_owned(),
            notes: Arc::default(),
            submitted: Instant::now(),
            number: inner.next,
            state: watch::Sender::new(State::Waiting),
            work: Mutex::default(),
        });
        inner.known.insert(id.to_owned(), request.clone());
        request
    }

    pub fn get(&self, id: &str) -> Option<Arc<Submitted>> {
        self.lock().known.get(id).cloned()
    }

    pub fn len(&self) -> usize {
        self.lock().known.len()
    }

    /// How many requests wait before this one.
    pub fn position(&self, request: &Submitted) -> usize {
        let before = |r: &&Arc<Submitted>| r.number < request.number && matches!(r.state(), State::Waiting);
        self.lock().known.values().filter(before).count()
    }

    /// Forgets what is older than its lifetime, and the oldest where there are too many or they are too large.
    pub fn expire(&self) {
        let mut inner = self.lock();
        let mut done: Vec<(Instant, usize, String)> = Vec::new();
        for (id, request) in &inner.known {
            if let State::Done(outcome) = request.state() {
                done.push((outcome.ended, outcome.bytes, id.clone()));
            }
        }
        done.sort_by_key(|(ended, _, _)| std::cmp::Reverse(*ended));
        let mut bytes = 0;
        let gone: Vec<Arc<Submitted>> = done
            .into_iter()
            .enumerate()
            .filter_map(|(i, (ended, size, id))| {
                bytes += size;
                let old = ended.elapsed() >= self.lifetime || i >= MAX_REQUESTS || bytes > RESULT_BYTES;
                if old { inner.known.remove(&id) } else { None }
            })
            .collect();
        drop(inner);
        drop(gone);
    }

    /// Stops everything, at the end of the time to drain.
    pub fn stop_all(&self) {
        let all: Vec<Arc<Submitted>> = self.lock().known.values().cloned().collect();
        all.iter().for_each(|r| {
            r.cancel();
        });
    }
}

impl Submitted {
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Follows the state.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The request's work begins, and can be cancelled from now on; `false` if it has been cancelled already.
    pub fn begin(&self, work: &Arc<Work>) -> bool {
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(work.clone());
        let begun = self.state.send_if_modified(|s| {
            let waiting = matches!(s, State::Waiting);
            if waiting {
                *s = State::Running;
            }
            waiting
        });
        if !begun {
            work.ticket.stop();
        }
        begun
    }

    /// The request has ended, unless it was cancelled before.
    pub fn end(&self, result: ApiResult<Value>) {
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let bytes = match &result {
            Ok(value) => rough_size(value),
            Err(_) => 1000,
        };
        let outcome = Outcome { result, took: self.submitted.elapsed(), ended: Instant::now(), bytes };
        self.state.send_if_modified(|s| {
            let open = !matches!(s, State::Done(_));
            if open {
                *s = State::Done(Arc::new(outcome));
            }
            open
        });
    }

    /// Stops the work and ends the request, unless it has ended.
    pub fn cancel(&self) -> Cancelled {
        if matches!(self.state(), State::Done(_)) {
            return Cancelled::TooLate;
        }
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = work {
            work.ticket.stop();
        }
        self.notes.say("Cancelled");
        self.end(Err(ApiError::cancelled()));
        Cancelled::Requested
    }

    /// The status as fal writes it. `logs` are the lines from a number on; `None` leaves them null.
    pub fn status(&self, state: &State, urls: &Value, position: usize, logs: Option<usize>) -> Value {
        let mut out = urls.clone();
        let lines = logs.map(|from| json!(self.notes.lines(from)));
        match state {
            State::Waiting => {
                out["status"] = "IN_QUEUE".into();
                out["queue_position"] = position.into();
            }
            State::Running => {
                out["status"] = "IN_PROGRESS".into();
                out["logs"] = lines.unwrap_or(Value::Null);
            }
            State::Done(outcome) => {
                out["status"] = "COMPLETED".into();
                out["logs"] = lines.unwrap_or(Value::Null);
                out["metrics"] = json!({ "inference_time": outcome.took.as_secs_f64() });
                if let Err(e) = &outcome.result {
                    out["error"] = e.words().into();
                    out["error_type"] = e.kind().into();
                }
            }
        }
        out
    }
}

/// About how many bytes a value takes: its texts, and something for the rest.
fn rough_size(value: &Value) -> usize {
    16 + match value {
        Value::String(s) => s.len(),
        Value::Array(list) => list.iter().map(rough_size).sum(),
        Value::Object(map) => map.iter().map(|(k, v)| k.len() + rough_size(v)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() -> Arc<Work> {
        Arc::new(Work::new(String::new(), Instant::now() + Duration::from_secs(100), Arc::default()))
    }

    #[test]
    fn requests_wait_run_and_end() {
        let requests = Requests::new(Duration::from_secs(100));
        let (a, b) = (requests.submit("a", "x/y"), requests.submit("b", "x/y"));
        assert_eq!((requests.position(&a), requests.position(&b)), (0, 1));
        assert!(a.begin(&work()));
        assert_eq!(requests.position(&b), 0);
        a.notes.say("one");
        let status = a.status(&a.state(), &json!({ "request_id": "a" }), 0, Some(0));
        assert_eq!((&status["status"], &status["logs"][0]["message"]), (&json!("IN_PROGRESS"), &json!("one")));
        a.end(Ok(json!({ "x": 1 })));
        assert_eq!(a.cancel(), Cancelled::TooLate);
        let status = a.status(&a.state(), &json!({}), 0, None);
        assert_eq!((&status["status"], &status["logs"]), (&json!("COMPLETED"), &Value::Null));
        assert!(status["metrics"]["inference_time"].as_f64().is_some());
        requests.expire();
        assert_eq!(requests.len(), 2);
    }

    #[test]
    fn cancelled_requests_stay_cancelled() {
        let requests = Requests::new(Duration::ZERO);
        let (early, late) = (requests.submit("a", "x/y"), requests.submit("b", "x/y"));
        assert_eq!(early.cancel(), Cancelled::Requested);
        let work_a = work();
        assert!(!early.begin(&work_a) && work_a.ticket.is_over());
        let work_b = work();
        assert!(late.begin(&work_b));
        assert_eq!(late.cancel(), Cancelled::Requested);
        assert!(work_b.ticket.is_over());
        late.end(Ok(json!(1)));
        let State::Done(outcome) = late.state() else { panic!("not done") };
        assert_eq!(outcome.result.as_ref().unwrap_err().status().as_u16(), 499);
        let status = late.status(&late.state(), &json!({}), 0, Some(0));
        assert_eq!(status["error_type"], "client_cancelled");
        requests.expire();
        assert_eq!(requests.len(), 0);
    }
}
