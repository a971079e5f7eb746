//! What a caller is told when something is wrong: fal's two shapes, and nothing of the server's insides.
//!
//! *Validation*, status 422: `{"detail": [{"loc": ["body", "max_masks"], "msg", "type", "input"?, "ctx"?, "url"}]}`,
//! with the types of pydantic for fields and fal's own (`image_load_error`, `file_download_error`) for what fields lead
//! to. *Everything else*: `{"detail": "words", "error_type": "request_timeout"}`, the type again in `X-Fal-Error-Type`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::{Error, ErrorKind};

/// fal's page on error types, which every one of its field errors links to.
const HELP: &str = "https://docs.fal.ai/errors/#";

/// Longest `input` that is repeated in an error, in bytes of JSON: enough to recognise a value, too little to send a
/// picture back.
const MAX_ECHO: usize = 256;

/// An error as it goes out. Cheap enough to clone for everybody who waits on the same work.
#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    body: Value,
    kind: &'static str,
    retry_after: Option<u64>,
    /// Whether the deadline that passed was the caller's own (`x-fal-request-timeout`), which clients do not retry.
    user_timeout: bool,
    /// What the log is told, and the caller is not.
    cause: Option<Cause>,
}

/// Why a request failed, for the log: it goes along with the answer, as an extension, to where the request is logged.
#[derive(Clone, Debug)]
pub struct Cause(pub Arc<str>);

pub type ApiResult<T> = std::result::Result<T, ApiError>;

/// One thing that is wrong with a field.
#[derive(Clone, Debug)]
pub struct FieldError {
    pub loc: Vec<Value>,
    pub msg: String,
    pub kind: &'static str,
    pub input: Option<Value>,
    pub ctx: Option<Value>,
}

impl FieldError {
    /// An error of type `kind` at `loc`, which begins below `body`.
    pub fn new(loc: &[Value], kind: &'static str, msg: impl Into<String>) -> Self {
        let loc = std::iter::once(Value::from("body")).chain(loc.iter().cloned()).collect();
        Self { loc, msg: msg.into(), kind, input: None, ctx: None }
    }

    /// Repeats the offending value, if it is short.
    pub fn input(mut self, input: Value) -> Self {
        self.input = Some(input).filter(|v| v.to_string().len() <= MAX_ECHO);
        self
    }

    pub fn ctx(mut self, ctx: Value) -> Self {
        self.ctx = Some(ctx);
        self
    }

    fn json(self) -> Value {
        let mut out = Map::new();
        out.insert("loc".into(), Value::Array(self.loc));
        out.insert("msg".into(), self.msg.into());
        out.insert("type".into(), self.kind.into());
        out.insert("url".into(), format!("{HELP}{}", self.kind).into());
        out.extend(self.input.map(|v| ("input".to_owned(), v)));
        out.extend(self.ctx.map(|v| ("ctx".to_owned(), v)));
        Value::Object(out)
    }
}

impl ApiError {
    fn plain(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        let body = json!({ "detail": detail, "error_type": kind });
        Self { status, body, kind, retry_after: None, user_timeout: false, cause: None }
    }

    /// 422 with a list of fields.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let detail: Vec<Value> = errors.into_iter().map(FieldError::json).collect();
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            body: json!({ "detail": detail }),
            kind: "validation",
            retry_after: None,
            user_timeout: false,
            cause: None,
        }
    }

    /// With what only the log is told.
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(Cause(cause.into().into()));
        self
    }

    pub fn cause(&self) -> Option<&str> {
        self.cause.as_ref().map(|c| &*c.0)
    }

    /// 422 for one top-level field.
    pub fn field(name: &str, kind: &'static str, msg: impl Into<String>) -> Self {
        Self::fields(vec![FieldError::new(&[name.into()], kind, msg)])
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::plain(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    pub fn unauthorized() -> Self {
        let detail = "expected a valid API key in the header Authorization: Key <key>";
        Self::plain(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::plain(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// The words fal uses for a path that leads nowhere.
    pub fn no_path(path: &str) -> Self {
        let shown: String = path.chars().take(200).collect();
        Self::not_found(format!("Path {shown} not found"))
    }

    pub fn method(allowed: &str) -> Self {
        let detail = format!("Method Not Allowed: expected {allowed}");
        Self::plain(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    pub fn too_large(limit: usize) -> Self {
        let detail = format!("expected a body of at most {limit} bytes");
        Self::plain(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", detail)
    }

    pub fn slow_body() -> Self {
        Self::plain(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the request's body did not arrive in time")
    }

    /// 429: every session is busy and the queue is full.
    pub fn busy(retry_after: u64) -> Self {
        let detail = format!("the queue is full; try again in {retry_after} s");
        let error = Self::plain(StatusCode::TOO_MANY_REQUESTS, "queue_full", detail);
        Self { retry_after: Some(retry_after), ..error }
    }

    pub fn draining() -> Self {
        let detail = "the server is shutting down";
        let error = Self::plain(StatusCode::SERVICE_UNAVAILABLE, "runner_scheduling_failure", detail);
        Self { retry_after: Some(5), ..error }
    }

    /// 504; `user` says that the deadline was the caller's own.
    pub fn timeout(seconds: f64, user: bool) -> Self {
        let detail = format!("Request timed out after {seconds} seconds");
        Self { user_timeout: user, ..Self::plain(StatusCode::GATEWAY_TIMEOUT, "request_timeout", detail) }
    }

    /// 499, as fal answers for what its caller cancelled.
    pub fn cancelled() -> Self {
        let status = StatusCode::from_u16(499).expect("499 is a status");
        Self::plain(status, "client_cancelled", "Request was cancelled by the client")
    }

    /// 500 without a reason: that is for the log.
    pub fn internal() -> Self {
        Self::plain(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal Server Error")
    }

    /// 507: the directory or the memory for results is full.
    pub fn no_space(detail: impl Into<String>) -> Self {
        Self::plain(StatusCode::INSUFFICIENT_STORAGE, "internal_error", detail)
    }

    /// What an engine error is to a caller; `field` is where it says what is wrong with the request. Files, weights and
    /// devices are the server's own affair: they are logged under the request's id and named by their kind alone.
    pub fn engine(error: &Error, field: &str) -> Self {
        match error.kind() {
            ErrorKind::InvalidArgument | ErrorKind::Unsupported => Self::field(field, "value_error", error.to_string()),
            ErrorKind::Image => Self::field(field, "image_load_error", error.to_string()),
            ErrorKind::Cancelled => Self::cancelled(),
            ErrorKind::OutOfMemory => {
                let detail = "out of memory";
                Self::plain(StatusCode::SERVICE_UNAVAILABLE, "runner_server_error", detail).because(error.to_string())
            }
            _ => Self::internal().because(error.to_string()),
        }
    }

    /// What a picture that cannot be read is to a caller.
    pub fn picture(error: &Error, field: &str) -> Self {
        let text = error.to_string();
        let kind = match error.kind() {
            ErrorKind::OutOfMemory => return Self::engine(error, field),
            _ if text.contains("expected at most") || text.contains("sides of at most") => "image_too_large",
            _ => "image_load_error",
        };
        Self::field(field, kind, text)
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn body(&self) -> &Value {
        &self.body
    }

    /// The error's type: of fal's list, or `validation`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Words for people, as the queue's status and webhooks carry them.
    pub fn words(&self) -> String {
        match &self.body["detail"] {
            Value::String(text) => text.clone(),
            Value::Array(list) => {
                let one = |e: &Value| {
                    let path: Vec<String> = e["loc"].as_array().into_iter().flatten().map(plain_text).collect();
                    format!("{}: {}", path.join("."), plain_text(&e["msg"]))
                };
                list.iter().map(one).collect::<Vec<_>>().join("; ")
            }
            _ => String::new(),
        }
    }

    pub fn response(&self) -> Response<Body> {
        let mut response = json_response(self.status, &self.body);
        let headers = response.headers_mut();
        let retryable = matches!(self.status.as_u16(), 429 | 500..=504);
        headers.insert(HeaderName::from_static("x-fal-retryable"), HeaderValue::from_static(bool_text(retryable)));
        if self.status == StatusCode::UNPROCESSABLE_ENTITY {
            headers.insert(HeaderName::from_static("x-fal-billable-units"), HeaderValue::from_static("0"));
        } else {
            headers.insert(HeaderName::from_static("x-fal-error-type"), HeaderValue::from_static(self.kind));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.user_timeout {
            headers.insert(HeaderName::from_static("x-fal-request-timeout-type"), HeaderValue::from_static("user"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Key"));
        }
        if let Some(cause) = &self.cause {
            response.extensions_mut().insert(cause.clone());
        }
        response
    }
}

/// A reply of JSON.
pub fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn plain_text(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}

fn bool_text(b: bool) -> &'static str {
    if b { "true" } else { "false" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_fals() {
        let e = ApiError::fields(vec![
            FieldError::new(&["max_masks".into()], "less_than_equal", "Input should be less than or equal to 32")
                .input(99.into())
                .ctx(json!({ "le": 32 })),
        ]);
        let one = &e.body()["detail"][0];
        assert_eq!(one["loc"], json!(["body", "max_masks"]));
        assert_eq!((&one["input"], &one["ctx"]["le"]), (&json!(99), &json!(32)));
        assert!(one["url"].as_str().unwrap().ends_with("less_than_equal"));
        let r = e.response();
        assert_eq!((r.status().as_u16(), r.headers()["x-fal-retryable"].to_str().unwrap()), (422, "false"));
        assert_eq!(e.words(), "body.max_masks: Input should be less than or equal to 32");
        let busy = ApiError::busy(3).response();
        assert_eq!((busy.status().as_u16(), busy.headers()["retry-after"].to_str().unwrap()), (429, "3"));
        let late = ApiError::timeout(1.5, true).response();
        assert_eq!(late.headers()["x-fal-request-timeout-type"], "user");
        assert_eq!(late.headers()["x-fal-error-type"], "request_timeout");
    }

    #[test]
    fn insides_stay_inside_and_pictures_are_not_sent_back() {
        let e = Error::new(ErrorKind::Checkpoint, "/secret/path is damaged");
        assert!(!ApiError::engine(&e, "image_url").body().to_string().contains("secret"));
        let long = FieldError::new(&[], "string_type", "no").input("x".repeat(10_000).into());
        assert!(long.json().get("input").is_none());
    }
}
