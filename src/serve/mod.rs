//! `sam3 serve`: the model behind HTTP.
//!
//! One process holds one model and a few [sessions](crate::Session) on threads of their own (`pool`). Requests are
//! admitted up to a number, and refused with 429 beyond it (`app`); pictures are encoded once and kept by the hash of
//! their files (`pictures`); results are served under names nobody can guess until their time is over (`files`).
//!
//! | routes | for | where |
//! |---|---|---|
//! | `POST /fal-ai/sam-3/image`, `/image-rle`, `/image/embed`, and under `sam-3-1` | fal's clients | `fal`, `run`, `input`, `render` |
//! | `POST /queue/…`, `GET /queue/fal-ai/sam-3/requests/{id}`, `/status`, `/status/stream`, `PUT …/cancel` | the same, queued | `fal`, `queue` |
//! | `/api/fal/proxy` with `x-fal-target-url` | `proxyUrl` of fal's JavaScript client | `http` |
//! | `POST /storage/upload/initiate`, `PUT /storage/upload/put/{id}`, `GET /files/{id}/{name}` | uploads, results | `storage`, `files` |
//! | `POST /storage/auth/token`, `POST /files/upload` | uploads of fal's Python client | `storage` |
//! | `POST /sam3/embed_image`, `/sam3/concept_segment`, `/sam3/visual_segment` | Roboflow's `inference-sdk` | `roboflow` |
//! | `GET /v1/models`, `POST /v1/predict` | X-AnyLabeling | `anylabeling` |
//! | `GET /` and the page's files | whoever looks | `pages` |
//! | `GET /api/info`, `POST /api/images`, `GET /api/images/{id}/picture`, `POST /api/images/{id}/segment` | the page | `playground` |
//! | `GET /health`, `/ready`, `/metrics`, `/openapi.json` | whoever runs it | `system`, `metrics`, `openapi` |
//!
//! # The playground's API
//!
//! For a page that encodes a picture once and then answers every click in the time of a click. All bodies are JSON,
//! coordinates are pixels of the upright picture, boxes are `[x0, y0, x1, y1]`. Errors have fal's shapes (`error`): 422
//! with a list of fields, otherwise `{"detail": "words", "error_type": "…"}`. Where keys are required, every request
//! brings `Authorization: Key …`; `/`, its files, `/health`, `/ready` and `/openapi.json` need none.
//!
//! `GET /api/info` → `{name, version, model, demo, origin, device, image_size, mask_side, concepts, objects, sessions,
//! queue, fetch, key_required, max_body_bytes, max_pixels, max_masks, lifetime_seconds}`: `demo` says that the model is
//! the small one for demonstrations; `origin` where its weights come from, in words, or null; `concepts` and `objects`
//! what prompts it takes; `fetch` whether URLs of others work.
//!
//! `POST /api/images` with the file itself as body (any `Content-Type` but JSON), or `{"image_url": "…"}` with a data URI
//! or URL → `{image_id, width, height, cached, timings}`. The same file has the same id, and is encoded once as long as it
//! is held. `GET /api/images/{image_id}` → `{image_id, width, height}`, or 404 if it is not held any more: then send it
//! again. `GET /api/images/{image_id}/picture` → the upright picture as PNG, for what the page's policy or the browser
//! cannot show by itself (fetched URLs, AVIF, TIFF).
//!
//! `POST /api/images/{image_id}/segment` with
//!
//! ```json
//! {
//!   "prompts": [
//!     { "text": "cat", "exemplars": [{ "box": [10, 20, 90, 80], "label": 1 }] },
//!     { "points": [{ "x": 40, "y": 50, "label": 1 }], "box": [10, 20, 90, 80], "mask_id": "…" }
//!   ],
//!   "threshold": 0.5, "mask_threshold": 0.5, "max_masks": 100, "multimask": false, "keep": false
//! }
//! ```
//!
//! → `{width, height, instances: [{score, box, area, prompt, rle, mask_id}], prompts: [{presence, concept}], timings}`,
//! best score first. Each prompt is a question of its own: a *concept* (`text`, `exemplars`, or both; every instance) or
//! an *object* (`points`, `box`, `mask_id` or `mask_url`, in any mix; the one shown). `instances[i].prompt` says which
//! one was answered. `rle` is `start length` pairs, one-based, row by row, foreground only, as `/image-rle` sends them.
//! `mask_id` names the mask's logits for the next round of clicks: send it with *all* clicks so far to refine; it is null
//! for concepts unless `keep` was true. `threshold` applies to concepts alone: a page with a slider asks once with a low
//! threshold and hides what lies below the slider. `multimask` returns three masks for each object. 404 means that the
//! picture is not held any more, 422 on `prompts` that a prompt is wrong, or its `mask_id` not held any more. `timings`
//! are seconds per stage: `decode`, `resize`, `encode_image` for pictures; `encode_text`, `ground`, `masks`, `segment`,
//! `postprocess` for prompts.
//!
//! # Crates
//!
//! `tokio` and `hyper` (with `hyper-util`, `http-body-util`) are the runtime and the HTTP of nearly every Rust server,
//! and hyper's client fetches what callers name, since it takes a connection to an address that was checked; `axum` (with
//! `tower`) routes. `tokio-rustls` with `ring` encrypts, with the roots of `webpki-roots` for fetching and a certificate
//! by `rcgen` for clients that speak nothing but https; `ring` also hashes pictures, makes names and compares keys.
//! `base64` reads data URIs. `futures-util` makes the stream of statuses.

mod addresses;
mod anylabeling;
mod app;
mod error;
mod fal;
#[cfg(test)]
mod faults;
mod fetch;
mod files;
mod http;
mod input;
mod listen;
mod log;
mod lru;
mod metrics;
mod openapi;
mod options;
mod pages;
mod pictures;
mod playground;
mod pool;
mod queue;
mod random;
mod render;
mod rest;
mod roboflow;
mod run;
mod schema;
mod source;
mod storage;
mod system;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::Model;
use crate::error::{Error, ErrorKind, Result};
use app::App;
pub use options::{Options, Tls};

/// How often what is over is removed.
const SWEEP: Duration = Duration::from_secs(10);

/// A server that runs on threads of its own until it is [stopped](Server::stop) or dropped.
pub struct Server {
    addr: SocketAddr,
    encrypted: bool,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts to serve `model`; requests are answered when this returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for options that cannot work, [`ErrorKind::Io`] if the address, the certificate or
    /// the directory cannot be used.
    pub fn start(model: Model, options: Options) -> Result<Self> {
        let io = |what: &str, e: std::io::Error| Error::new(ErrorKind::Io, what).with_source(e);
        let tls = tls::acceptor(&options.tls)?;
        let addr = options.addr;
        // Before the sessions: an address in use is the commonest mistake.
        let listener = std::net::TcpListener::bind(addr).map_err(|e| io("cannot listen", e).at(addr))?;
        listener.set_nonblocking(true).map_err(|e| io("cannot listen", e))?;
        let addr = listener.local_addr().map_err(|e| io("cannot listen", e))?;
        let app = Arc::new(App::new(model, Options { addr, ..options })?);
        let about = app.model.info();
        match &about.passed_over {
            Some(why) => {
                app.log.info("model", &[("device", (*about.device).into()), ("no_gpu", why.reason.clone().into())])
            }
            None => app.log.info("model", &[("device", (*about.device).into())]),
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(|e| io("cannot start the runtime", e))?;
        let (stop, stopped) = watch::channel(false);
        let encrypted = tls.is_some();
        let serve = move || {
            runtime.block_on(async {
                let listener = match TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(e) => return app.log.error("listen", &e.to_string()),
                };
                let sweeper = tokio::spawn(sweep(app.clone()));
                listen::serve(app.clone(), routes(app.clone()), listener, tls, stopped).await;
                sweeper.abort();
                app.log.info("stopped", &[]);
            });
            // What is still running has had its time.
            runtime.shutdown_timeout(Duration::from_secs(1));
        };
        let thread = std::thread::Builder::new()
            .name("server".into())
            .spawn(serve)
            .map_err(|e| io("cannot start the server's thread", e))?;
        Ok(Self { addr, encrypted, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its address for a browser.
    pub fn url(&self) -> String {
        let scheme = if self.encrypted { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }

    /// Takes no more connections, lets requests finish within [`Options::drain`], and ends.
    pub fn stop(mut self) {
        self.end();
    }

    /// Asks it to stop and does not wait.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + 'static {
        let stop = self.stop.clone();
        move || {
            stop.send_replace(true);
        }
    }

    /// Waits until it has been stopped.
    pub fn wait(mut self) {
        self.join();
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Its panics have been told on standard error.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Serves until the process is told to end: by ctrl-C or, on Unix, SIGTERM, after which it drains; by a second one of
/// them, at once. `started` is told the server's address when it answers.
///
/// # Errors
///
/// As [`Server::start`].
pub fn run(model: Model, options: Options, started: impl FnOnce(&str)) -> Result<()> {
    let server = Server::start(model, options)?;
    started(&server.url());
    let stop = server.stopper();
    let io = |e| Error::new(ErrorKind::Io, "cannot wait for signals").with_source(e);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io)?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(async {
                signal().await;
                stop();
                signal().await;
            });
            std::process::exit(1);
        })
        .map_err(io)?;
    server.wait();
    Ok(())
}

/// The next wish to end.
async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// All routes.
fn routes(app: Arc<App>) -> Router {
    fal::routes()
        .merge(storage::routes())
        .merge(playground::routes())
        .merge(roboflow::routes())
        .merge(anylabeling::routes())
        .merge(pages::routes())
        .merge(system::routes())
        .fallback(system::no_route)
        .method_not_allowed_fallback(async || error::ApiError::method("another method").response())
        .with_state(app)
}

/// Removes what is over, now and then.
async fn sweep(app: Arc<App>) {
    loop {
        tokio::time::sleep(SWEEP.min(app.options.lifetime).max(Duration::from_millis(100))).await;
        let state = app.clone();
        let swept = tokio::task::spawn_blocking(move || {
            state.files.expire();
            state.requests.expire();
            let gone = state.logits.lock().unwrap_or_else(std::sync::PoisonError::into_inner).expire();
            drop(gone);
        });
        // A panic there has been told on standard error; the next sweep is another try.
        let _ = swept.await;
    }
}
