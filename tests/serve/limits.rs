//! Load, deadlines, people who leave, and people who mean harm.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use axum::body::Body;
use serde_json::json;

use crate::harness::*;

#[test]
fn a_full_house_refuses_and_recovers() {
    let service = start(slow(), |o| (o.sessions, o.queue) = (1, 1));
    let addr = service.addr;
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let ask = |seed: u8| {
            scope.spawn(move || {
                let body = json!({ "image_url": fresh(seed), "prompt": "x" }).to_string();
                send(addr, "POST", RLE, &[], body.into()).unwrap()
            })
        };
        let threads: Vec<_> = (0..6).map(|i| ask(10 + 2 * i)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let refused: Vec<&Reply> = replies.iter().filter(|r| r.status == 429).collect();
    let answered = replies.iter().filter(|r| r.status == 200).count();
    assert_eq!(answered + refused.len(), 6, "{replies:?}");
    assert!(answered >= 2 && !refused.is_empty(), "{answered} answered");
    for reply in &refused {
        assert_eq!(reply.fails(429), "queue_full");
        assert!((1..=60).contains(&reply.header("retry-after").parse::<u64>().unwrap()));
        assert_eq!(reply.header("x-fal-retryable"), "true");
    }
    assert_eq!(service.figure("sam3_refused_total"), refused.len() as u64);
    service.post(RLE, &json!({ "image_url": fresh(10), "prompt": "x" })).ok();
}

/// A house that one request fills, a request for a body of 8 MiB without the end of its head, and what makes the full one end.
fn full_house(seed: u8) -> (Service, String, std::thread::JoinHandle<u16>) {
    let service = start(slow(), |o| (o.sessions, o.queue) = (1, 0));
    let (addr, body) = (service.addr, json!({ "image_url": fresh(seed), "prompt": "x" }).to_string());
    let running = std::thread::spawn(move || send(addr, "POST", RLE, &[], body.into()).unwrap().status);
    service.until("/metrics", |_| service.figure("sam3_requests_inside") == 1);
    (service, format!("POST {RLE} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n", 8 << 20), running)
}

#[test]
fn who_asks_before_sending_a_body_is_told_not_to() {
    let (service, head, running) = full_house(21);
    let asked = service.raw(format!("{head}expect: 100-continue\r\n\r\n").as_bytes());
    assert!(asked.starts_with("HTTP/1.1 429 "), "{asked}");
    assert_eq!(running.join().unwrap(), 200);
}

#[test]
fn an_early_answer_arrives_before_the_body_has() {
    let (service, head, running) = full_house(22);
    // More than the buffers of both sockets hold, sent to a full house: reset on the way, it would take the answer along.
    let (mut stream, mut text) = (TcpStream::connect(service.addr).unwrap(), String::new());
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    stream.write_all("x".repeat(8 << 20).as_bytes()).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 429 ") && text.contains("HTTP/1.1 200 "), "{text}");
    assert_eq!(running.join().unwrap(), 200);
}

#[test]
fn one_look_serves_everybody_who_waits_for_it() {
    let service = start(slow(), |o| o.sessions = 2);
    let (addr, body) = (service.addr, json!({ "image_url": fresh(5), "prompt": "x" }).to_string());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(send(addr, "POST", RLE, &[], body.clone().into()).unwrap().status, 200));
        }
    });
    assert_eq!(service.figure("sam3_pictures_looks_total"), 1);
    let hits = service.figure("sam3_pictures_hits_total") + service.figure("sam3_pictures_joins_total");
    assert_eq!(hits, 3);
}

#[test]
fn the_cache_keeps_to_its_limit() {
    let service = start(fast(), |o| o.cache_bytes = 500_000);
    for seed in 0..8 {
        service.post(RLE, &json!({ "image_url": fresh(seed * 2), "prompt": "x" })).ok();
        assert!(service.figure("sam3_pictures_bytes") <= 500_000);
    }
    assert_eq!(service.figure("sam3_pictures_looks_total"), 8);
    assert!((1..8).contains(&service.figure("sam3_pictures_held")));
}

#[test]
fn deadlines_pass_and_stop_the_work() {
    let service = start(slow(), |o| o.sessions = 1);
    let body = json!({ "image_url": fresh(7), "prompt": "x" }).to_string();
    let begin = Instant::now();
    let reply = service.send("POST", RLE, &[("x-fal-request-timeout", "0.003")], body.clone());
    assert_eq!(reply.fails(504), "request_timeout");
    assert_eq!(reply.header("x-fal-request-timeout-type"), "user");
    assert!(begin.elapsed() < Duration::from_secs(20));
    service.until("/metrics", |_| service.figure("sam3_sessions_busy") == 0);
    assert_eq!(service.figure("sam3_pictures_looks_total"), 0, "the look was stopped");
    assert_eq!(service.send("POST", RLE, &[("x-fal-request-timeout", "soon")], body.clone()).fails(400), "bad_request");
    let own = start(slow(), |o| o.timeout = Duration::from_millis(3));
    let reply = own.send("POST", RLE, &[], body);
    assert_eq!((reply.fails(504).as_str(), reply.header("x-fal-request-timeout-type")), ("request_timeout", ""));
}

#[test]
fn who_leaves_is_not_worked_for() {
    let service = start(slow(), |o| o.sessions = 1);
    let body = json!({ "image_url": fresh(9), "prompt": "x" }).to_string();
    let mut stream = TcpStream::connect(service.addr).unwrap();
    let head = format!("POST {RLE} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    service.until("/metrics", |_| service.figure("sam3_sessions_busy") == 1);
    drop(stream);
    service.until("/metrics", |_| service.figure("sam3_sessions_busy") == 0);
    assert_eq!(service.figure("sam3_pictures_looks_total"), 0);
    assert_eq!(service.figure("sam3_requests_inside"), 0);
}

#[test]
fn bodies_are_limited_in_length_and_time() {
    let service = start(fast(), |o| {
        (o.max_body, o.bodies_bytes) = (10_000, 16_384);
        o.body_timeout = Duration::from_millis(300);
    });
    let long = "x".repeat(20_000);
    assert_eq!(service.send("POST", IMAGE, &[], long.clone()).fails(413), "request_too_large");
    let declared = service.raw(b"POST /fal-ai/sam-3/image HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n");
    assert!(declared.starts_with("HTTP/1.1 413 "), "{declared}");
    let chunked =
        format!("POST {IMAGE} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4e20\r\n{long}\r\n0\r\n\r\n");
    assert!(service.raw(chunked.as_bytes()).starts_with("HTTP/1.1 413 "));
    let slow = service.raw(b"POST /fal-ai/sam-3/image HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{");
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
    // Two bodies of 9,000 bytes are more than all may have together: the first is still being sent.
    let mut first = TcpStream::connect(service.addr).unwrap();
    let head = format!("POST {IMAGE} HTTP/1.1\r\nhost: a\r\ncontent-length: 9500\r\n\r\n{}", "x".repeat(9_400));
    first.write_all(head.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let second = service.send("POST", IMAGE, &[], "x".repeat(9_400));
    assert_eq!(second.fails(429), "queue_full");
    let mut out = String::new();
    first.read_to_string(&mut out).ok();
    assert!(out.starts_with("HTTP/1.1 408 "), "{out}");
    assert_eq!(
        service.send("POST", IMAGE, &[], "x".repeat(9_400)).fails(422),
        "json_invalid",
        "the budget is given back"
    );
}

/// A PNG of this size whose rows are all zero, as small as zlib makes it: stored blocks are not needed for the header to
/// be believed.
fn claimed(width: u32, height: u32) -> Vec<u8> {
    let chunk = |name: &[u8], data: &[u8]| {
        let mut body = name.to_vec();
        body.extend_from_slice(data);
        let mut crc = !0u32;
        for b in &body {
            crc ^= u32::from(*b);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        [(data.len() as u32).to_be_bytes().as_slice(), &body, &(!crc).to_be_bytes()].concat()
    };
    let header = [width.to_be_bytes().as_slice(), &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    [
        b"\x89PNG\r\n\x1a\n".as_slice(),
        &chunk(b"IHDR", &header),
        &chunk(b"IDAT", &[0x78, 1, 3, 0, 0, 0, 0, 1]),
        &chunk(b"IEND", &[]),
    ]
    .concat()
}

#[test]
fn bombs_do_not_go_off() {
    let service = start(fast(), |o| o.max_pixels = 1_000_000);
    for (width, height, kind) in [
        (1001, 1000, "image_too_large"),
        (60_000, 60_000, "image_too_large"),
        // More than the decoder itself would begin with.
        (u32::MAX >> 1, u32::MAX >> 1, "image_load_error"),
        (900_000, 1, "image_too_large"),
        (1000, 1000, "image_load_error"),
    ] {
        let url = format!("data:image/png;base64,{}", base64(&claimed(width, height)));
        assert_eq!(service.post(IMAGE, &json!({ "image_url": url })).fails(422), kind, "{width}×{height}");
        let mask = json!({ "image_url": data_uri(), "mask_url": url });
        assert_eq!(service.post(IMAGE, &mask).fails(422), kind, "{width}×{height}");
    }
    let points = vec![json!({ "x": 1, "y": 1 }); 1001];
    assert_eq!(
        service.post(IMAGE, &json!({ "image_url": data_uri(), "point_prompts": points })).fails(422),
        "too_long"
    );
    let deep = format!(r#"{{"image_url": "x", "point_prompts": {}{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    service.send("POST", IMAGE, &[], deep).fails(422);
    let phrase = "word ".repeat(199);
    assert_eq!(service.post(IMAGE, &json!({ "image_url": data_uri(), "prompt": phrase })).fails(422), "value_error");
    assert_eq!(
        service.post(IMAGE, &json!({ "image_url": data_uri(), "prompt": "x".repeat(1001) })).fails(422),
        "string_too_long"
    );
    assert_eq!(service.figure("sam3_panics_total"), 0);
}

#[test]
fn broken_bytes_and_smuggled_requests_are_refused() {
    let service = start(fast(), |_| {});
    let text = |bytes: &[u8]| service.send("POST", IMAGE, &[], bytes.to_vec());
    assert_eq!(text(b"{\"image_url\": \"\xff\xfe\"}").fails(422), "json_invalid");
    assert_eq!(text(b"").fails(422), "json_invalid");
    assert_eq!(text(b"\x00").fails(422), "json_invalid");
    assert_eq!(text(br#"{"image_url": "\ud800"}"#).fails(422), "string_unicode");
    for (name, request) in [
        ("two lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx"),
        ("a length of minus one", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n"),
        ("a header over two lines", "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b: c\r\n\r\n"),
        ("a space before the colon", "GET / HTTP/1.1\r\nhost : a\r\n\r\n"),
        ("no method", "\x00\x01\x02\r\n\r\n"),
        ("another protocol", "GET / SMTP/1.0\r\n\r\n"),
    ] {
        let out = service.raw(request.as_bytes());
        assert!(out.is_empty() || out.starts_with("HTTP/1.1 4"), "{name}: {out}");
    }
    // Both framings: the second request must not come from inside the first one's body.
    let both = "POST /health HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n\
                0\r\n\r\nGET /api/info HTTP/1.1\r\nhost: a\r\n\r\n";
    let out = service.raw(both.as_bytes());
    // Chunks win, and nothing that follows is believed (RFC 9112, 6.1).
    assert!(out.contains("connection: close") && !out.contains("image_size"), "{out}");
    assert_eq!(out.matches("HTTP/1.1 ").count(), 1, "{out}");
    let many: String = (0..300).map(|i| format!("x-{i}: y\r\n")).collect();
    let out = service.raw(format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n").as_bytes());
    assert!(out.starts_with("HTTP/1.1 431 "), "{out}");
    let long = service.raw(format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(200_000)).as_bytes());
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 4"), "{long}");
    service.get("/health").ok();
}

#[test]
fn paths_stay_within_their_routes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    let service = start(fast(), |o| o.dir = Some(dir.path().join("files")));
    for path in [
        "/files/../secret",
        "/files/..%2fsecret/x",
        "/files/%2e%2e/secret",
        "/files/%2e%2e%2fsecret/secret",
        "/files/....//secret",
        "/files//x",
        "/files/\\..\\secret/x",
        "/storage/upload/put/..%2f..%2fsecret",
        "/queue/fal-ai/sam-3/requests/..%2f../status",
        "/api/images/..%2fsecret",
        "//files/x/y",
        "/%00",
    ] {
        let out = service.raw(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes());
        let status: u16 = out.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(400);
        assert!(matches!(status, 400 | 404 | 405), "{path}: {out}");
        assert!(!out.contains("secret\r\n") && !out.ends_with("secret"), "{path}: {out}");
    }
    let put = service.send("PUT", "/storage/upload/put/..%2f..%2fescaped", &[], "x");
    put.fails(404);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn keys_are_asked_for_everywhere_but_at_the_door() {
    let service = start(fast(), |o| o.api_keys = vec!["first-key".into(), "second-key".into()]);
    for path in ["/", "/app.js", "/style.css", "/health", "/ready", "/openapi.json"] {
        assert_eq!(service.get(path).status, 200, "{path}");
    }
    for path in ["/metrics", "/api/info", "/v1/models", "/queue/fal-ai/sam-3/requests/0/status", "/nowhere"] {
        assert_eq!(service.get(path).fails(401), "unauthorized", "{path}");
    }
    let body = json!({ "image_url": data_uri(), "prompt": "x" }).to_string();
    for (name, value, status) in [
        ("authorization", "Key first-key", 200),
        ("authorization", "Bearer second-key", 200),
        ("token", "first-key", 200),
        ("authorization", "Key first-ke", 401),
        ("authorization", "Key first-key2", 401),
        ("authorization", "first-key", 401),
        ("authorization", "Basic first-key", 401),
        ("x-other", "first-key", 401),
    ] {
        assert_eq!(service.send("POST", RLE, &[(name, value)], body.clone()).status, status, "{name}: {value}");
    }
    assert_eq!(service.send("POST", &format!("{RLE}?api_key=first-key"), &[], body.clone()).status, 200);
    let key = [("authorization", "Key first-key")];
    let out = service.send(
        "POST",
        IMAGE,
        &key,
        json!({ "image_url": data_uri(), "prompt": "x", "detection_threshold": 0 }).to_string(),
    );
    let url = out.ok()["masks"][0]["url"].as_str().unwrap().strip_prefix(&service.url("")).unwrap().to_owned();
    assert_eq!(service.get(&url).status, 200, "a name nobody can guess is key enough");
    let proxied = [("x-fal-target-url", "https://fal.run/fal-ai/sam-3/image-rle")];
    assert_eq!(service.send("POST", "/api/fal/proxy", &proxied, body).status, 401);
    // An upload with a token: the token is worth what its owner's key is.
    assert_eq!(service.send("POST", "/files/upload", &[], input()).fails(401), "unauthorized");
    assert_eq!(service.send("POST", "/storage/auth/token", &[], "{}").fails(401), "unauthorized");
    let token = service.send("POST", "/storage/auth/token", &key, "{}").ok();
    let bearer = format!("{} {}", token["token_type"].as_str().unwrap(), token["token"].as_str().unwrap());
    assert_eq!(token["base_url"], service.url(""));
    let headers =
        [("authorization", bearer.as_str()), ("content-type", "image/png"), ("x-fal-file-name", "../a b.png")];
    let uploaded = service.send("POST", "/files/upload", &headers, input()).ok();
    let path = uploaded["access_url"].as_str().unwrap().strip_prefix(&service.url("")).unwrap().to_owned();
    assert!(path.ends_with("/a_b.png"), "{path}");
    assert_eq!(service.get(&path).body, input());
    let empty = service.send("POST", "/files/upload", &key, Body::empty());
    assert_eq!(empty.fails(422), "missing");
}

#[test]
fn a_stop_lets_requests_finish_and_takes_no_new_ones() {
    let service = start(slow(), |o| (o.sessions, o.drain) = (1, Duration::from_secs(60)));
    let addr = service.addr;
    let body = json!({ "image_url": fresh(11), "prompt": "x" }).to_string();
    let queued = service.post("/queue/fal-ai/sam-3/image-rle", &json!({ "image_url": fresh(13), "prompt": "x" }));
    queued.ok();
    let mut idle = TcpStream::connect(addr).unwrap();
    let running = std::thread::spawn(move || send(addr, "POST", RLE, &[], body.into()).unwrap());
    service.until("/metrics", |_| service.figure("sam3_requests_inside") == 2);
    let stop = service.server.stopper();
    stop();
    let begin = Instant::now();
    while TcpStream::connect(addr).is_ok_and(|mut s| {
        // The listener may have taken it just before it closed.
        s.write_all(b"GET /ready HTTP/1.1\r\nhost: a\r\n\r\n").is_ok() && s.read(&mut [0; 12]).unwrap_or(0) > 0
    }) {
        assert!(begin.elapsed() < Duration::from_secs(5), "still takes connections");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(running.join().unwrap().status, 200, "what had begun is answered");
    service.server.wait();
    assert_eq!(idle.read(&mut [0; 1]).unwrap_or(0), 0, "idle connections are closed");

    let hurried = start(slow(), |o| (o.sessions, o.drain) = (1, Duration::from_millis(100)));
    hurried.post("/queue/fal-ai/sam-3/image-rle", &json!({ "image_url": fresh(15), "prompt": "x" })).ok();
    let begin = Instant::now();
    hurried.server.stop();
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn results_end_and_a_full_store_says_so() {
    let service = start(fast(), |o| (o.lifetime, o.file_bytes) = (Duration::from_millis(400), 100_000));
    let out = service.post(IMAGE, &json!({ "image_url": data_uri(), "prompt": "x", "detection_threshold": 0 })).ok();
    let path = out["image"]["url"].as_str().unwrap().strip_prefix(&service.url("")).unwrap().to_owned();
    assert_eq!(service.get(&path).status, 200);
    service.until(&path, |r| r.status == 404);
    service.until("/metrics", |_| service.figure("sam3_files_bytes") == 0);
    let small = start(fast(), |o| o.file_bytes = 100);
    let reply = small.post(IMAGE, &json!({ "image_url": data_uri(), "prompt": "x", "detection_threshold": 0 }));
    assert_eq!(reply.fails(507), "internal_error");
}
