//! Uploads, in the two forms that fal's clients know, and the files they and the endpoints leave.
//!
//! The JavaScript client, and the Python one with `repository="fal"`, announce an upload and then send it to where they
//! are told. The Python client by itself asks for a token first, and sends the file with it in one request.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Request, Response, header};
use axum::routing::{get, post, put};
use serde_json::json;

use super::app::App;
use super::error::{ApiError, FieldError};
use super::fal::reply;
use super::http::{self, Ctx};
use super::log::timestamp;
use super::random;
use super::schema::{Kind, optional};

/// The routes.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/storage/upload/initiate", post(initiate))
        .route("/storage/upload/put/{id}", put(upload))
        .route("/storage/auth/token", post(token))
        .route("/files/upload", post(at_once))
        .route("/files/{id}/{name}", get(file))
}

/// What an upload is announced with.
pub fn initiate_schema() -> Kind {
    Kind::Object(vec![
        optional("content_type", Kind::Text(200), "Type of the file.").or(json!("application/octet-stream")),
        optional("file_name", Kind::Text(1000), "Name of the file.").or(json!("file")),
    ])
}

/// Announces an upload: where to send it, and what it will be called.
async fn initiate(
    State(app): State<Arc<App>>,
    Extension(ctx): Extension<Ctx>,
    request: Request<Body>,
) -> Response<Body> {
    let announced = async {
        let body = app.body(request).await?;
        let input = initiate_schema().read(&body.bytes)?;
        let text = |name: &str| input[name].as_str().unwrap_or_default().to_owned();
        let (id, path) = app.files.announce(&text("file_name"), &text("content_type"));
        let base = &ctx.base;
        Ok(json!({ "upload_url": format!("{base}/storage/upload/put/{id}"), "file_url": format!("{base}{path}") }))
    };
    reply(announced.await)
}

/// Receives an upload that was announced.
async fn upload(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request<Body>) -> Response<Body> {
    let received = async {
        if !random::is_id(&id) {
            return Err(ApiError::not_found("no upload is expected here, or it has come already"));
        }
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let body = app.body(request).await?;
        let (held, bytes) = (app.clone(), body.bytes.clone());
        app.blocking(move || held.files.receive(&id, content_type.as_deref(), bytes)).await??;
        Ok(json!({}))
    };
    reply(received.await)
}

/// What an upload at once is to bring along: the key that its caller has just shown, or any word where none is asked for.
async fn token(State(app): State<Arc<App>>, Extension(ctx): Extension<Ctx>, headers: HeaderMap) -> Response<Body> {
    let key = http::key(&headers).filter(|_| app.keys.required());
    let end = timestamp(SystemTime::now() + app.options.lifetime);
    reply(Ok(json!({
        "token": key.unwrap_or_else(|| "none".into()),
        "token_type": "Bearer",
        "base_url": ctx.base,
        // Python before 3.11 reads no `Z`.
        "expires_at": end.replace('Z', "+00:00"),
    })))
}

/// Receives an upload in one request: the file as body, its name in a header.
async fn at_once(
    State(app): State<Arc<App>>,
    Extension(ctx): Extension<Ctx>,
    request: Request<Body>,
) -> Response<Body> {
    let received = async {
        let [name, content_type] =
            [("x-fal-file-name", "file"), ("content-type", "application/octet-stream")].map(|(header, otherwise)| {
                request.headers().get(header).and_then(|v| v.to_str().ok()).unwrap_or(otherwise).to_owned()
            });
        let body = app.body(request).await?;
        if body.bytes.is_empty() {
            return Err(ApiError::fields(vec![FieldError::new(&[], "missing", "Field required: the file as body")]));
        }
        let (held, bytes) = (app.clone(), body.bytes.clone());
        let path = app.blocking(move || held.files.keep(&name, &content_type, bytes)).await??;
        Ok(json!({ "access_url": format!("{}{path}", ctx.base) }))
    };
    reply(received.await)
}

/// A result or an upload.
async fn file(State(app): State<Arc<App>>, Path((id, _name)): Path<(String, String)>) -> Response<Body> {
    let Some(file) = app.files.get(&id) else {
        return ApiError::not_found("the file is not here, or not here any more").response();
    };
    let (content_type, disposition) = (file.content_type, format!("inline; filename=\"{}\"", file.name));
    let bytes = match app.blocking(move || file.read()).await.and_then(|read| read) {
        Ok(bytes) => bytes,
        Err(e) => return e.response(),
    };
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Names are of a few harmless characters.
    if let Ok(value) = HeaderValue::from_str(&disposition) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600, immutable"));
    response
}
