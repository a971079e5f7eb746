//! The playground's files, embedded: the server needs nothing beside its own program, and the page nothing from
//! elsewhere.
//!
//! [`FILES`] is the only list of them. Routes, what needs no key, and the names in the figures follow from it.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Response, header};
use axum::routing::get;

use super::app::App;
use super::http::PAGE_POLICY;

/// A file of the page.
struct File {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

/// A line of the table: where the file is served, its type, and its name in `playground/`.
macro_rules! files {
    ($($path:literal, $content_type:literal, $name:literal;)*) => {
        [$(File {
            path: $path,
            content_type: $content_type,
            bytes: include_bytes!(concat!("playground/", $name)),
        }),*]
    };
}

const FILES: [File; 25] = files! {
    "/", "text/html; charset=utf-8", "index.html";
    "/index.html", "text/html; charset=utf-8", "index.html";
    "/api.html", "text/html; charset=utf-8", "api.html";
    "/style.css", "text/css; charset=utf-8", "style.css";
    "/parts.css", "text/css; charset=utf-8", "parts.css";
    "/app.js", "text/javascript; charset=utf-8", "app.js";
    "/api.js", "text/javascript; charset=utf-8", "api.js";
    "/asks.js", "text/javascript; charset=utf-8", "asks.js";
    "/code.js", "text/javascript; charset=utf-8", "code.js";
    "/dom.js", "text/javascript; charset=utf-8", "dom.js";
    "/intake.js", "text/javascript; charset=utf-8", "intake.js";
    "/list.js", "text/javascript; charset=utf-8", "list.js";
    "/log.js", "text/javascript; charset=utf-8", "log.js";
    "/mask.js", "text/javascript; charset=utf-8", "mask.js";
    "/prompts.js", "text/javascript; charset=utf-8", "prompts.js";
    "/reference.js", "text/javascript; charset=utf-8", "reference.js";
    "/save.js", "text/javascript; charset=utf-8", "save.js";
    "/settings.js", "text/javascript; charset=utf-8", "settings.js";
    "/stage.js", "text/javascript; charset=utf-8", "stage.js";
    "/state.js", "text/javascript; charset=utf-8", "state.js";
    "/view.js", "text/javascript; charset=utf-8", "view.js";
    "/icon.svg", "image/svg+xml", "icon.svg";
    "/samples/shapes.png", "image/png", "samples/shapes.png";
    "/samples/cat.jpg", "image/jpeg", "samples/cat.jpg";
    "/samples/coffee.jpg", "image/jpeg", "samples/coffee.jpg";
};

/// Whether `path` is one of the page's files.
pub fn is_page(path: &str) -> bool {
    FILES.iter().any(|f| f.path == path)
}

/// The routes.
pub fn routes() -> Router<Arc<App>> {
    FILES.iter().fold(Router::new(), |router, file| router.route(file.path, get(async || page(file))))
}

fn page(file: &'static File) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from_static(file.bytes)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    // Pages of others must not learn what is on this one by embedding it.
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What scripts import, and what the page links, is in the table: a module that is missing is a blank page.
    #[test]
    fn whatever_the_page_asks_for_is_served() {
        for file in FILES.iter().filter(|f| f.content_type.starts_with("text/")) {
            let text = std::str::from_utf8(file.bytes).expect("is text");
            for quoted in text.split(['"', '\'']) {
                let local = quoted.strip_prefix("./").filter(|q| q.ends_with(".js")).or_else(|| {
                    let linked = [".js", ".css", ".svg", ".png", ".jpg"].iter().any(|e| quoted.ends_with(e));
                    (file.path == "/" && linked && !quoted.contains([' ', ':', '\n'])).then_some(quoted)
                });
                let Some(name) = local else { continue };
                assert!(is_page(&format!("/{name}")), "{} asks for {quoted}", file.path);
            }
        }
    }

    #[test]
    fn nothing_comes_from_elsewhere() {
        for file in FILES.iter().filter(|f| f.content_type.starts_with("text/html") || f.path.ends_with(".css")) {
            let text = std::str::from_utf8(file.bytes).expect("is text");
            for outside in ["http://", "https://", "@import", "style=\"", "<style"] {
                assert!(!text.contains(outside), "{} has {outside}", file.path);
            }
        }
    }
}
