//! Starts servers, and speaks HTTP with them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use base64::Engine;
use http_body_util::BodyExt;
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use sam3::image::Picture;
use sam3::serve::{Options, Server};
use sam3::{Device, Model, ModelOptions};
use serde_json::Value;

pub const IMAGE: &str = "/fal-ai/sam-3/image";
pub const RLE: &str = "/fal-ai/sam-3/image-rle";
pub const EMBED: &str = "/fal-ai/sam-3/image/embed";

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The tiny model on the CPU, which answers in milliseconds.
pub fn fast() -> Model {
    Model::open(fixture("tiny-a"), &ModelOptions::on(Device::Cpu).threads(1)).unwrap()
}

/// The same by the plain loops, which take about a second to look at a picture: long enough to be interrupted.
pub fn slow() -> Model {
    Model::open(fixture("tiny-a"), &ModelOptions::on(Device::Reference)).unwrap()
}

/// A server on a free port of loopback.
pub struct Service {
    pub server: Server,
    pub addr: SocketAddr,
}

pub fn start(model: Model, change: impl FnOnce(&mut Options)) -> Service {
    let mut options = Options::default();
    options.addr = "127.0.0.1:0".parse().unwrap();
    options.log = false;
    options.drain = Duration::from_secs(5);
    change(&mut options);
    let server = Server::start(model, options).unwrap();
    Service { addr: server.addr(), server }
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The JSON of an answer with status 200.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// An answer with this status in fal's shape; returns its error type, or that of its first field.
    #[track_caller]
    pub fn fails(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        let body = self.json();
        if status == 422 {
            for e in body["detail"].as_array().expect("a list of fields") {
                assert_eq!(e["loc"][0], "body", "{e}");
                assert!(e["msg"].is_string() && e["type"].is_string() && e["url"].is_string(), "{e}");
            }
            return body["detail"][0]["type"].as_str().unwrap().to_owned();
        }
        assert!(body["detail"].is_string(), "{body}");
        assert_eq!(body["error_type"], self.header("x-fal-error-type"), "{body}");
        body["error_type"].as_str().unwrap().to_owned()
    }
}

impl Service {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
        send(self.addr, method, path, headers, body.into()).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], Body::empty())
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string())
    }

    /// Asks until the answer is what is waited for.
    #[track_caller]
    pub fn until(&self, path: &str, done: impl Fn(&Reply) -> bool) -> Reply {
        let begin = Instant::now();
        loop {
            let reply = self.get(path);
            if done(&reply) {
                return reply;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{path} stays {reply:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A figure of `/metrics` by its name.
    #[track_caller]
    pub fn figure(&self, name: &str) -> u64 {
        let text = String::from_utf8(self.get("/metrics").body.to_vec()).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Sends bytes as they are, and returns all that comes back until the server closes or is silent for a while.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        // The server may close before it has read everything.
        let _ = stream.write_all(bytes);
        let mut out = Vec::new();
        let _ = stream.read_to_end(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

pub fn send(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Result<Reply, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
            request = request.header("host", addr.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let reply = sender.send_request(request.body(body).unwrap()).await.map_err(|e| e.to_string())?;
        let (head, body) = reply.into_parts();
        let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
    };
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(120), exchange).await })
        .map_err(|_| "no answer in time".to_owned())?
}

pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub fn unbase64(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

pub fn input() -> Vec<u8> {
    std::fs::read(fixture("tiny-a/input.png")).unwrap()
}

/// The picture of the tiny checkpoint, 83 × 59 pixels, as a data URI.
pub fn data_uri() -> String {
    format!("data:image/png;base64,{}", base64(&input()))
}

/// A picture nobody has sent before: its cache entry is new.
pub fn fresh(seed: u8) -> String {
    use sam3::image::{FileFormat, ImageView, PixelFormat, encode};
    let pixels: Vec<u8> = (0..32 * 32 * 3).map(|i: u32| (i as u8).wrapping_mul(seed | 1).wrapping_add(seed)).collect();
    let view = ImageView::new(&pixels, 32, 32, 96, PixelFormat::Rgb8).unwrap();
    format!("data:image/png;base64,{}", base64(&encode(&view, FileFormat::Png).unwrap()))
}

/// The file an image object of an answer points to, decoded; `bytes` are the file's.
#[track_caller]
pub fn picture_of(service: &Service, object: &Value) -> (Picture, Bytes) {
    let url = object["url"].as_str().unwrap();
    let bytes = match url.split_once(";base64,") {
        Some((_, data)) => Bytes::from(unbase64(data)),
        None => {
            let path = url.strip_prefix(&service.url("")).unwrap_or_else(|| panic!("{url} is not here"));
            let reply = service.get(path);
            assert_eq!((reply.status, reply.header("content-type")), (200, object["content_type"].as_str().unwrap()));
            reply.body
        }
    };
    assert_eq!(object["file_size"], bytes.len());
    let picture = Picture::decode(&bytes).unwrap();
    assert_eq!((&object["width"], &object["height"]), (&picture.width().into(), &picture.height().into()));
    (picture, bytes)
}
