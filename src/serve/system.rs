//! Routes about the server itself: whether it is there, what it is, its figures.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::routing::get;
use serde_json::{Value, json};

use super::app::App;
use super::error::{ApiError, json_response};
use super::http::Ctx;
use super::input::MAX_MASKS_OUT;
use super::{metrics, openapi};

/// The routes.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/health", get(async || json_response(StatusCode::OK, &json!({ "status": "ok" }))))
        .route("/ready", get(ready))
        .route("/metrics", get(figures))
        .route("/openapi.json", get(document))
        .route("/api/info", get(info))
        .route("/favicon.ico", get(async || StatusCode::NO_CONTENT))
}

/// What answers where there is no route.
pub async fn no_route(request: Request<Body>) -> Response<Body> {
    ApiError::no_path(request.uri().path()).response()
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
        "origin": info.config.origin,
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
