//! Fetching what callers name: pictures, and deliveries to webhooks. Off unless allowed.
//!
//! Whoever can make a server fetch an address of their choice can reach what only the server can: routers, databases,
//! the cloud's metadata. So a host is resolved once, every address it has must be public ([`super::addresses`]), and the
//! connection goes to the very address that was checked, so that a second answer of the DNS changes nothing. Redirects
//! are followed by hand, each checked the same way. `http` and `https` only, no user names, a limit on bytes, on
//! redirects, and on the time for all of it. Proxies of the environment are not used: they would resolve the host again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Most bytes of a fetched file, as fal's own limit.
pub const MAX_BYTES: usize = 50 << 20;

/// Most redirects.
const MAX_REDIRECTS: usize = 5;

/// Longest time for one file, redirects included; the request's own deadline may come first.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time for a webhook's receiver to answer, as fal's.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest URL.
const MAX_URL: usize = 4096;

/// What fetches.
pub struct Fetch {
    allowed: bool,
    /// Which addresses may be connected to.
    reachable: fn(IpAddr) -> bool,
    tls: TlsConnector,
}

impl Fetch {
    /// Connects to what `reachable` accepts: [`super::addresses::is_public`], unless in tests.
    pub fn new(allowed: bool, reachable: fn(IpAddr) -> bool) -> Self {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { allowed, reachable, tls: TlsConnector::from(Arc::new(config)) }
    }

    pub fn allowed(&self) -> bool {
        self.allowed
    }

    /// The bytes at `url`, or words about why not.
    pub async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.follow(url)).await;
        fetched.map_err(|_| format!("the file did not arrive within {} s", FETCH_TIMEOUT.as_secs()))?
    }

    async fn follow(&self, url: &str) -> Result<Vec<u8>, String> {
        let mut at = parse(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let request = Request::get("/").body(Body::empty()).map_err(|e| e.to_string())?;
            let (status, headers, body) = self.send(&at, request).await?;
            if status.is_redirection() {
                let to = headers.get(header::LOCATION).and_then(|v| v.to_str().ok());
                at = join(&at, to.ok_or("a redirect leads nowhere")?)?;
                continue;
            }
            if !status.is_success() {
                return Err(format!("the file's server answered {}", status.as_u16()));
            }
            return collect(body, MAX_BYTES).await;
        }
        Err(format!("more than {MAX_REDIRECTS} redirects"))
    }

    /// Posts JSON to a webhook: delivered if the receiver answers with success. Redirects are not followed.
    pub async fn deliver(&self, url: &str, body: Bytes) -> Result<(), String> {
        let delivery = async {
            let request = Request::builder()
                .method(Method::POST)
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body))
                .map_err(|e| e.to_string())?;
            let (status, _, _) = self.send(&parse(url)?, request).await?;
            if status.is_success() { Ok(()) } else { Err(format!("the receiver answered {}", status.as_u16())) }
        };
        tokio::time::timeout(DELIVERY_TIMEOUT, delivery).await.map_err(|_| "the receiver did not answer in time")?
    }

    /// Sends one request to where `url` points.
    async fn send(&self, url: &Uri, mut request: Request<Body>) -> Result<(StatusCode, HeaderMap, Incoming), String> {
        let (host, secure) = (host(url), url.scheme_str() == Some("https"));
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect(&self.resolve(host, port).await?[..])
            .await
            .map_err(|_| "cannot connect to the file's server")?;
        let path = url.path_and_query().map_or("/", |p| p.as_str());
        *request.uri_mut() = path.parse().map_err(|_| "the URL's path is not one")?;
        let authority = url.authority().map(|a| a.as_str()).unwrap_or_default();
        let authority = authority.parse().map_err(|_| "the URL's host is not one")?;
        request.headers_mut().insert(header::HOST, authority);
        let agent = concat!("sam3/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert(header::USER_AGENT, header::HeaderValue::from_static(agent));
        if secure {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| "the URL's host is no name for https")?;
            let stream = self.tls.connect(name, stream).await.map_err(|e| format!("no secure connection: {e}"))?;
            speak(stream, request).await
        } else {
            speak(stream, request).await
        }
    }

    /// The addresses of a host, if every one of them may be fetched from.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|_| format!("the host {host} has no address"))?
            .collect();
        if found.is_empty() {
            return Err(format!("the host {host} has no address"));
        }
        if !found.iter().all(|a| (self.reachable)(a.ip())) {
            return Err(format!("the host {host} is not a public one"));
        }
        Ok(found)
    }
}

/// The URL, if it is one this fetches at all.
pub fn parse(url: &str) -> Result<Uri, String> {
    if url.len() > MAX_URL {
        return Err(format!("expected a URL of at most {MAX_URL} bytes"));
    }
    // People paste addresses as browsers show them.
    let escaped: String = url
        .trim()
        .bytes()
        .map(|b| if b.is_ascii_graphic() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    let uri: Uri = escaped.parse().map_err(|_| "expected a URL".to_owned())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("expected a URL that begins with http:// or https://".into());
    }
    match uri.authority() {
        Some(a) if a.as_str().contains('@') => Err("expected a URL without a user name".into()),
        Some(_) if !host(&uri).is_empty() => Ok(uri),
        _ => Err("expected a URL with a host".into()),
    }
}

/// The host without the brackets of an IPv6 address.
fn host(url: &Uri) -> &str {
    url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

/// Where a redirect from `from` leads.
fn join(from: &Uri, to: &str) -> Result<Uri, String> {
    if to.contains("://") {
        return parse(to);
    }
    let scheme = from.scheme_str().unwrap_or("https");
    if to.starts_with("//") {
        return parse(&format!("{scheme}:{to}"));
    }
    let authority = from.authority().map(|a| a.as_str()).unwrap_or_default();
    if to.starts_with('/') {
        return parse(&format!("{scheme}://{authority}{to}"));
    }
    let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    parse(&format!("{scheme}://{authority}{folder}/{to}"))
}

/// One exchange on a connection of its own.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> Result<(StatusCode, HeaderMap, Incoming), String> {
    let broken = |e: hyper::Error| format!("the connection broke: {e}");
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(64 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends when the answer has been read, or dropped.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
    Ok((head.status, head.headers, body))
}

/// At most `limit` bytes of a body.
async fn collect(mut body: Incoming, limit: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    if hyper::body::Body::size_hint(&body).lower() > limit as u64 {
        return Err(format!("expected a file of at most {limit} bytes"));
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "the file broke off")?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > limit {
                return Err(format!("expected a file of at most {limit} bytes"));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::addresses::is_public;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers requests one after another, each with what the text says for its path; others with what it says for
    /// nothing.
    async fn site(host: &str, pages: Vec<(&'static str, String)>) -> u16 {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let n = stream.read(&mut head).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..n]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let page =
                    pages.iter().find(|(p, _)| *p == path).map_or("HTTP/1.1 404 No\r\n\r\n", |(_, t)| t.as_str());
                let _ = stream.write_all(page.as_bytes()).await;
            }
        });
        port
    }

    fn found(to: &str) -> String {
        format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
    }

    #[test]
    fn every_redirect_is_checked_and_counted() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let inner =
                site("127.0.0.2", vec![("/secret", "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret".into())]).await;
            let huge = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\nx", MAX_BYTES + 1);
            let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(10));
            let outer = site(
                "127.0.0.1",
                vec![
                    ("/ok", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood".into()),
                    ("/to-ok", found("ok")),
                    ("/to-secret", found(&format!("http://127.0.0.2:{inner}/secret"))),
                    ("/to-file", found("file:///etc/passwd")),
                    ("/round", found("/round")),
                    ("/huge", huge),
                    ("/endless", endless),
                    ("/nowhere", "HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".into()),
                    ("/nonsense", "NOT HTTP\r\n\r\n".into()),
                ],
            )
            .await;
            // The test's internet is one address.
            let fetch = Fetch::new(true, |a| a == IpAddr::from([127, 0, 0, 1]));
            let url = |path: &str| format!("http://127.0.0.1:{outer}{path}");
            assert_eq!(fetch.get(&url("/ok")).await.unwrap(), b"good");
            assert_eq!(fetch.get(&url("/to-ok")).await.unwrap(), b"good");
            assert_eq!(fetch.get(&url("/endless")).await.unwrap().len(), 10);
            for (path, words) in [
                ("/to-secret", "not a public"),
                ("/to-file", "URL"),
                ("/round", "redirects"),
                ("/huge", "at most"),
                ("/nowhere", "nowhere"),
                ("/nonsense", "broke"),
                ("/missing", "404"),
            ] {
                let error = fetch.get(&url(path)).await.expect_err(path);
                assert!(error.contains(words), "{path}: {error}");
            }
            assert!(fetch.deliver(&url("/ok"), Bytes::from_static(b"{}")).await.is_ok());
            assert!(
                fetch.deliver(&url("/to-ok"), Bytes::new()).await.is_err(),
                "redirects of webhooks are not followed"
            );
            let direct = format!("http://127.0.0.2:{inner}/secret");
            assert!(fetch.get(&direct).await.unwrap_err().contains("not a public"));
        });
    }

    #[test]
    fn only_plain_web_addresses_are_urls() {
        for good in ["http://a.example/x.png", "https://a.example:8443/x y/ü.png?q=1", "http://[2606:4700::1]/"] {
            parse(good).unwrap();
        }
        for bad in [
            "",
            "file:///etc/passwd",
            "ftp://a/x",
            "gopher://a",
            "/x",
            "a.example/x",
            "http://u:p@a/x",
            "http://",
            "http:///x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&format!("http://a/{}", "x".repeat(5000))).is_err());
    }

    #[test]
    fn redirects_are_joined_and_checked() {
        let from = parse("https://a.example/b/c.png?q").unwrap();
        for (to, expected) in [
            ("d.png", "https://a.example/b/d.png"),
            ("/d.png", "https://a.example/d.png"),
            ("//e.example/d", "https://e.example/d"),
            ("http://e.example/d", "http://e.example/d"),
        ] {
            assert_eq!(join(&from, to).unwrap().to_string(), expected);
        }
        assert!(join(&from, "file:///etc/passwd").is_err());
    }

    #[test]
    fn hosts_that_are_not_public_are_refused_however_they_are_written() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let fetch = Fetch::new(true, is_public);
        for url in [
            "http://127.0.0.1/",
            "http://localhost:1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/latest/meta-data",
            "http://10.1.2.3/",
            "http://0.0.0.0/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://127.1/",
        ] {
            let error = runtime.block_on(fetch.get(url)).expect_err(url);
            assert!(error.contains("not a public") || error.contains("no address"), "{url}: {error}");
        }
    }
}
