//! The rest of a request's body, which its handler did not want.
//!
//! An error may be certain before the body has come: the queue is full, a key is wrong. A server that answers then and
//! closes, with bytes of the body still arriving, has the connection reset, and a reset takes away what the client has not
//! read yet: the very answer. So the rest is read and thrown away first, within limits.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

/// Longest time for the rest to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A body that two hands hold: a handler's, and that of whoever reads the rest.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Body>>);

impl Shared {
    pub fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    fn with<T>(&self, f: impl FnOnce(Pin<&mut Body>) -> T) -> T {
        f(Pin::new(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Throws away what is left of at most `limit` bytes. Who has announced more, was too slow already, or waits to be
    /// asked for the body (`Expect: 100-continue`), gets the answer at once.
    pub async fn discard(mut self, head: &HeaderMap, status: StatusCode, limit: usize) {
        use hyper::body::Body as _;
        let announced = self.size_hint().lower();
        if self.is_end_stream()
            || announced > limit as u64
            || status == StatusCode::REQUEST_TIMEOUT
            || head.contains_key(header::EXPECT)
        {
            return;
        }
        let mut seen = 0;
        let read = async {
            while let Some(Ok(frame)) = self.frame().await {
                seen += frame.data_ref().map_or(0, Bytes::len);
                if seen > limit {
                    break;
                }
            }
        };
        // In time or not, the answer is next.
        let _ = tokio::time::timeout(PATIENCE, read).await;
    }
}

impl hyper::body::Body for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|body| body.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}
