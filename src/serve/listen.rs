//! Connections: accepted up to a number, encrypted if asked for, served as HTTP/1.1, and drained at the end.
//!
//! `axum::serve` would do for a server among friends. This one waits only so long for a TLS handshake and for a request's
//! head, holds only so many connections, and on the signal to stop lets requests finish while it takes no new ones; so
//! it drives hyper itself. The HTTP is hyper's.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::app::App;
use super::http;

/// Longest time for the head of a request to arrive, and so for an idle connection to stay, and for a TLS handshake.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Most bytes of a request's head, and most headers in it.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 100;

/// Serves until `stop` says so, then drains.
pub async fn serve(
    app: Arc<App>,
    router: Router,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(app.options.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|s| *s) => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let connection = Connection { app: app.clone(), router: router.clone(), watcher: graceful.watcher() };
                tokio::spawn(connection.run(stream, tls.clone(), place));
            }
            Err(e) => {
                // Too many open files, usually. They are closed as connections end; spinning would not help.
                app.log.warn("accept", &e.to_string());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    app.draining.store(true, Ordering::Relaxed);
    app.log.info("draining", &[("requests", app.inside().into())]);
    let finish = async {
        // Queued requests hold places but no connections; connections may be idle.
        tokio::join!(graceful.shutdown(), app.empty());
    };
    if tokio::time::timeout(app.options.drain, finish).await.is_err() {
        app.log.warn("drain", "requests were cut off at the end of the time to drain");
        app.requests.stop_all();
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    // Never closed.
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

struct Connection {
    app: Arc<App>,
    router: Router,
    watcher: Watcher,
}

impl Connection {
    async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>, _place: OwnedSemaphorePermit) {
        // Answers are small or whole: waiting for more to send helps nobody.
        let _ = stream.set_nodelay(true);
        match tls {
            None => self.speak(stream, false).await,
            Some(acceptor) => {
                // Failed handshakes are the caller's, and noise.
                if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
                    self.speak(stream, true).await;
                }
            }
        }
    }

    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, tls: bool) {
        let Self { app, router, watcher } = self;
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (app, router) = (app.clone(), router.clone());
            async move { Ok::<_, std::convert::Infallible>(http::answer(app, router, request.map(Body::new), tls).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        // Broken connections and requests are the caller's; hyper answers what can be answered.
        let _ = watcher.watch(connection).await;
    }
}
