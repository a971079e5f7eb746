//! Routes about the server itself: whether it is there, what it is, its figures, its page.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use axum::routing::get;
use serde_json::{Value, json};

use super::app::App;
use super::error::{ApiError, json_response};
use super::http::{Ctx, PAGE_POLICY};
use super::input::MAX_MASKS_OUT;
use super::{metrics, openapi};

/// The page, embedded: the server needs nothing beside its own file.
const PAGE: &str = include_str!("playground/index.html");
const SCRIPT: &str = include_str!("playground/app.js");
const STYLE: &str = include_str!("playground/style.css");

/// The routes.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/health", get(async || json_response(StatusCode::OK, &json!({ "status": "ok" }))))
        .route("/ready", get(ready))
        .route("/metrics", get(figures))
        .route("/openapi.json", get(document))
        .route("/api/info", get(info))
        .route("/", get(async || page(PAGE, "text/html; charset=utf-8")))
        .route("/index.html", get(async || page(PAGE, "text/html; charset=utf-8")))
        .route("/app.js", get(async || page(SCRIPT, "text/javascript; charset=utf-8")))
        .route("/style.css", get(async || page(STYLE, "text/css; charset=utf-8")))
        .route("/favicon.ico", get(async || StatusCode::NO_CONTENT))
}

/// What answers where there is no route.
pub async fn no_route(request: Request<Body>) -> Response<Body> {
    ApiError::no_path(request.uri().path()).response()
}

fn page(text: &'static str, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    // Pages of others must not learn what is on this one by embedding it.
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    response
}

/// Whether requests are taken: not any more once the server has been told to stop.
async fn ready(State(app): State<Arc<App>>) -> Response<Body> {
    if app.draining.load(Ordering::Relaxed) {
        return ApiError::draining().response();
    }
    json_response(StatusCode::OK, &json!({ "status": "ready" }))
}

async fn figures(State(app): State<Arc<App>>) -> Response<Body> {
    let mut response = Response::new(Body::from(metrics::text(&app)));
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

async fn document(Extension(ctx): Extension<Ctx>) -> Response<Body> {
    json_response(StatusCode::OK, &openapi::document(&ctx.base))
}

async fn info(State(app): State<Arc<App>>) -> Response<Body> {
    json_response(StatusCode::OK, &about(&app))
}

/// What the server is and takes.
fn about(app: &App) -> Value {
    let (info, options) = (app.model.info(), &app.options);
    json!({
        "name": "sam3",
        "version": env!("CARGO_PKG_VERSION"),
        "model": options.model_name,
        "demo": options.demo,
        "device": info.device,
        "image_size": info.config.vision.image_size,
        "mask_side": app.model.mask_side(),
        "concepts": info.config.detector.is_some(),
        "objects": info.config.tracker.is_some(),
        "sessions": options.sessions,
        "queue": options.queue,
        "fetch": app.fetch.allowed(),
        "key_required": app.keys.required(),
        "max_body_bytes": options.max_body,
        "max_pixels": options.max_pixels,
        "max_masks": MAX_MASKS_OUT,
        "lifetime_seconds": options.lifetime.as_secs(),
    })
}
