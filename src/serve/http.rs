//! What happens to every request before and after its route: which route it means, whether it may, the headers of the
//! answer, the log, the figures.
//!
//! A request means the queue if it says so in one of three ways, which are those of fal's clients: the path begins with
//! `/queue/`; the host is `queue.…`; it comes to `/api/fal/proxy` with `x-fal-target-url: https://queue.fal.run/…`, as
//! `proxyUrl` of the JavaScript client sends everything. All are rewritten to the first before routing.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use futures_util::FutureExt;
use tower::ServiceExt;

use super::app::{App, Notes, Work};
use super::error::{ApiError, ApiResult, Cause};
use super::rest::Shared;
use super::{pages, random};

/// Where `proxyUrl` points.
const PROXY: &str = "/api/fal/proxy";

/// fal's hosts that a proxied request may mean, and what their paths are here.
const TARGETS: [(&str, &str); 5] = [
    ("fal.run", ""),
    ("queue.fal.run", "/queue"),
    ("rest.fal.ai", ""),
    ("rest.alpha.fal.ai", ""),
    ("rest.fal.run", ""),
];

/// What nothing but a browser's page of ours may do: no scripts, styles or pictures from elsewhere. Pictures may be
/// blobs and data, since the playground draws them.
pub const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
                               connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; \
                               frame-ancestors 'none'";

/// What anything else may do if a browser shows it as a page: nothing.
const OTHER_POLICY: &str = "default-src 'none'; sandbox; frame-ancestors 'none'";

/// What a handler knows of its request beside the request itself.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// `x-fal-request-id` of the answer.
    pub id: String,
    /// `scheme://host` as the caller sees this server.
    pub base: String,
    /// What the caller puts before queue paths: `/queue`, or nothing where the host says it.
    pub queue_prefix: &'static str,
    pub start: Instant,
    /// The caller's own deadline, if it named one that comes before the server's.
    user_timeout: Option<Duration>,
}

impl Ctx {
    /// How long this request may take, and whether its caller said so.
    pub fn patience(&self, app: &App) -> (Duration, bool) {
        match self.user_timeout {
            Some(t) => (t, true),
            None => (app.options.timeout, false),
        }
    }

    /// Runs `f` on a piece of work for this request until its deadline.
    pub async fn work<T>(
        &self,
        app: &Arc<App>,
        notes: Arc<Notes>,
        f: impl AsyncFnOnce(Arc<Work>) -> ApiResult<T>,
    ) -> ApiResult<T> {
        let (patience, user) = self.patience(app);
        let deadline = self.start + patience;
        let work = Arc::new(Work::new(self.base.clone(), deadline, notes));
        match tokio::time::timeout_at(deadline.into(), f(work)).await {
            // A session that saw the deadline pass says so a moment before the clock here does.
            Ok(Err(e)) if e.status().as_u16() == 499 && Instant::now() >= deadline => {
                Err(ApiError::timeout(patience.as_secs_f64(), user))
            }
            Ok(result) => result,
            Err(_) => Err(ApiError::timeout(patience.as_secs_f64(), user)),
        }
    }
}

/// Answers one request.
pub async fn answer(app: Arc<App>, router: Router, mut request: Request<Body>, tls: bool) -> Response<Body> {
    let start = Instant::now();
    let id = random::id();
    let (method, asked) = (request.method().clone(), request.uri().path().to_owned());
    let prepared = prepare(&app, &mut request, &id, start, tls);
    let (head, body) = (request.headers().clone(), Shared::new(std::mem::take(request.body_mut())));
    *request.body_mut() = Body::new(body.clone());
    let path = request.uri().path().to_owned();
    let mut response = match prepared {
        Err(e) => e.response(),
        Ok(()) if method == Method::OPTIONS => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Ok(()) => {
            // Routers are infallible; a handler that panics has not begun its answer.
            match AssertUnwindSafe(router.oneshot(request)).catch_unwind().await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => {
                    app.metrics.panicked();
                    ApiError::internal().because(format!("the handler of {path} panicked")).response()
                }
            }
        }
    };
    dress(response.headers_mut(), &id);
    let status = response.status();
    if !status.is_success() {
        body.discard(&head, status, app.options.max_body).await;
    }
    let took = start.elapsed();
    app.metrics.request(route_label(&path), status.as_u16(), took);
    if let Some(cause) = response.extensions().get::<Cause>() {
        app.log.failed(&id, &cause.0);
    }
    let shown: String = asked.chars().take(200).collect();
    app.log.info(
        "request",
        &[
            ("request_id", id.into()),
            ("method", method.as_str().into()),
            ("path", shown.into()),
            ("status", status.as_u16().into()),
            ("ms", ((took.as_secs_f64() * 1e5).round() / 100.0).into()),
        ],
    );
    response
}

/// Finds out what the request means, and whether it may.
fn prepare(app: &App, request: &mut Request<Body>, id: &str, start: Instant, tls: bool) -> ApiResult<()> {
    let (uri, queue_prefix) = meant(request)?;
    if percent_decode(uri.path()).is_none_or(|p| p.contains('\0')) {
        return Err(ApiError::bad_request("the path is not text"));
    }
    *request.uri_mut() = uri;
    let headers = request.headers();
    if app.keys.required() && !is_public(request.method(), request.uri().path()) {
        let given = key(headers).or_else(|| query_key(request.uri()));
        if !given.is_some_and(|k| app.keys.accept(&k)) {
            return Err(ApiError::unauthorized());
        }
    }
    let user_timeout = match headers.get("x-fal-request-timeout") {
        None => None,
        Some(value) => {
            let seconds = value.to_str().ok().and_then(|v| v.trim().parse::<f64>().ok());
            let seconds = seconds
                .filter(|s| *s >= 0.0 && s.is_finite())
                .ok_or_else(|| ApiError::bad_request("x-fal-request-timeout: expected a number of seconds"))?;
            Some(Duration::from_secs_f64(seconds.min(1e6))).filter(|t| *t < app.options.timeout)
        }
    };
    let base = base(headers, request.uri(), tls).unwrap_or_else(|| format!("http://{}", app.options.addr));
    request.extensions_mut().insert(Ctx { id: id.to_owned(), base, queue_prefix, start, user_timeout });
    Ok(())
}

/// The address the request means, in the form with `/queue`, and what its caller puts before queue paths.
fn meant(request: &Request<Body>) -> ApiResult<(Uri, &'static str)> {
    let (headers, uri) = (request.headers(), request.uri());
    let path_and_query = uri.path_and_query().map_or("/", |p| p.as_str());
    if uri.path() == PROXY {
        let target = headers.get("x-fal-target-url").and_then(|v| v.to_str().ok());
        let target: Uri = target
            .and_then(|t| t.parse().ok())
            .ok_or_else(|| ApiError::bad_request("x-fal-target-url: expected the URL of fal that is meant"))?;
        let host = target.host().unwrap_or_default();
        let prefix =
            TARGETS.iter().find(|(name, _)| host.eq_ignore_ascii_case(name)).map(|(_, p)| *p).ok_or_else(|| {
                ApiError::bad_request("x-fal-target-url: expected fal.run, queue.fal.run or rest.fal.ai")
            })?;
        let rest = target.path_and_query().map_or("/", |p| p.as_str());
        return Ok((rewritten(&format!("{prefix}{rest}"))?, "/queue"));
    }
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).or(uri.host()).unwrap_or_default();
    if host.to_ascii_lowercase().starts_with("queue.") && !uri.path().starts_with("/files/") {
        return Ok((rewritten(&format!("/queue{path_and_query}"))?, ""));
    }
    Ok((rewritten(path_and_query)?, "/queue"))
}

fn rewritten(path_and_query: &str) -> ApiResult<Uri> {
    path_and_query.parse().map_err(|_| ApiError::bad_request("the path is not one"))
}

/// `scheme://host` from the caller's side, by what a proxy in front says, or by the request itself. Whoever lies about it
/// gets wrong links, and nobody else does.
fn base(headers: &HeaderMap, uri: &Uri, tls: bool) -> Option<String> {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.split(',').next()?.trim().to_owned());
    let host = text("x-forwarded-host").or_else(|| text("host")).or_else(|| Some(uri.authority()?.to_string()))?;
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._:[]".contains(&c);
    if host.is_empty() || host.len() > 255 || !host.bytes().all(plain) {
        return None;
    }
    let scheme = match text("x-forwarded-proto").as_deref() {
        Some("https") => "https",
        Some("http") => "http",
        _ if tls => "https",
        _ => "http",
    };
    Some(format!("{scheme}://{host}"))
}

/// What needs no key: what says nothing but that the server is there, the page, which asks for the key itself, and what
/// is protected by names that cannot be guessed.
fn is_public(method: &Method, path: &str) -> bool {
    method == Method::OPTIONS
        || pages::is_page(path)
        || matches!(path, "/health" | "/ready" | "/openapi.json" | "/favicon.ico")
        || (path.starts_with("/files/") && matches!(*method, Method::GET | Method::HEAD))
        || path.starts_with("/storage/upload/put/")
}

/// The key a request brings: `Authorization: Key …` as fal's clients send it, `Bearer …` as most others do, `Token …`,
/// or the header of X-AnyLabeling.
pub fn key(headers: &HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    if let Some((scheme, key)) = text("authorization").and_then(|v| v.trim().split_once(' ')) {
        let known = ["key", "bearer", "token"].iter().any(|s| scheme.eq_ignore_ascii_case(s));
        return known.then(|| key.trim().to_owned());
    }
    text("token").or_else(|| text("x-api-key")).map(|k| k.trim().to_owned())
}

/// The key of Roboflow's client, which puts it into the address.
fn query_key(uri: &Uri) -> Option<String> {
    query(uri, "api_key")
}

/// The first value of `name` in a query, percent signs decoded.
pub fn query(uri: &Uri, name: &str) -> Option<String> {
    let pairs = uri.query()?.split('&').map(|p| p.split_once('=').unwrap_or((p, "")));
    let (_, value) = pairs.into_iter().find(|(n, _)| *n == name)?;
    percent_decode(value)
}

/// `%41` to `A`, `+` to a space; `None` if that is not text.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<u8>| char::from(b?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                (high * 16 + low) as u8
            }
            _ => b,
        });
    }
    String::from_utf8(out).ok()
}

/// Headers of every answer: the request's id, fal's CORS, and what keeps browsers from guessing.
fn dress(headers: &mut HeaderMap, id: &str) {
    let mut set = |name: &'static str, value: &'static str| {
        headers.entry(HeaderName::from_static(name)).or_insert(HeaderValue::from_static(value));
    };
    // Open as fal's, whose users call it from their own pages; there are no cookies that could be misused.
    set("access-control-allow-origin", "*");
    set("access-control-allow-methods", "GET, POST, PUT, DELETE, OPTIONS");
    set("access-control-allow-headers", "*, authorization");
    set("access-control-expose-headers", "*");
    set("access-control-max-age", "600");
    set("x-content-type-options", "nosniff");
    set("referrer-policy", "no-referrer");
    set("x-frame-options", "DENY");
    set("cross-origin-resource-policy", "cross-origin");
    set("content-security-policy", OTHER_POLICY);
    set("cache-control", "no-store");
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(HeaderName::from_static("x-fal-request-id"), id);
    }
}

/// A path's name in the figures: few, whatever callers ask for.
fn route_label(path: &str) -> &'static str {
    const KNOWN: [&str; 13] = [
        "/queue/",
        "/fal-ai/",
        "/files/",
        "/storage/",
        "/sam3/",
        "/v1/",
        "/api/",
        "/health",
        "/ready",
        "/metrics",
        "/openapi.json",
        "/favicon.ico",
        "/proxy",
    ];
    match path {
        // The page and its files, all one.
        _ if pages::is_page(path) => "/",
        _ => KNOWN.iter().find(|k| path.starts_with(**k)).map_or("other", |k| k.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<Body> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn three_ways_lead_to_the_queue() {
        let target = |t| request(PROXY, &[("host", "a:1"), ("x-fal-target-url", t)]);
        for (r, path, prefix) in [
            (request("/queue/fal-ai/sam-3/image?x=1", &[("host", "a:1")]), "/queue/fal-ai/sam-3/image?x=1", "/queue"),
            (request("/fal-ai/sam-3/image", &[("host", "queue.a:1")]), "/queue/fal-ai/sam-3/image", ""),
            (request("/fal-ai/sam-3/image", &[("host", "a:1")]), "/fal-ai/sam-3/image", "/queue"),
            (target("https://queue.fal.run/fal-ai/sam-3/image?a=b"), "/queue/fal-ai/sam-3/image?a=b", "/queue"),
            (target("https://fal.run/fal-ai/sam-3/image"), "/fal-ai/sam-3/image", "/queue"),
            (target("https://rest.fal.ai/storage/upload/initiate"), "/storage/upload/initiate", "/queue"),
        ] {
            let (uri, p) = meant(&r).unwrap();
            assert_eq!((uri.to_string().as_str(), p), (path, prefix));
        }
        for wrong in ["https://evil.example/x", "https://fal.run.evil.example/x", "nonsense", "", "file:///etc/passwd"]
        {
            assert!(meant(&target(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bases_are_what_the_caller_sees() {
        let of = |h: &[(&str, &str)]| base(request("/", h).headers(), &"/".parse().unwrap(), false);
        assert_eq!(of(&[("host", "localhost:8333")]).unwrap(), "http://localhost:8333");
        let proxied = [("host", "a"), ("x-forwarded-host", "b.example"), ("x-forwarded-proto", "https")];
        assert_eq!(of(&proxied).unwrap(), "https://b.example");
        for bad in ["a/b", "a b", "a\"b", "", "a@b"] {
            assert_eq!(of(&[("host", bad)]), None, "{bad}");
        }
    }

    #[test]
    fn keys_come_in_several_forms() {
        let of = |name, value| key(request("/", &[(name, value)]).headers());
        assert_eq!(of("authorization", "Key abc").unwrap(), "abc");
        assert_eq!(of("authorization", "bearer abc").unwrap(), "abc");
        assert_eq!(of("token", "abc").unwrap(), "abc");
        assert_eq!(of("authorization", "Basic abc"), None);
        assert_eq!(query(&"/x?a=1&api_key=a%2Bb".parse().unwrap(), "api_key").unwrap(), "a+b");
        assert_eq!(percent_decode("%f"), None);
        assert_eq!(percent_decode("%ff"), None);
    }
}
