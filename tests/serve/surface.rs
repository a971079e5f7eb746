//! Everything a browser or an operator sees: routes, headers, the document, the figures, encryption.

use axum::body::Body;
use sam3::serve::Tls;
use serde_json::json;

use crate::harness::*;

#[test]
fn every_documented_path_is_there_and_every_other_is_not() {
    let service = start(fast(), |_| {});
    let document = service.get("/openapi.json").ok();
    assert_eq!(document["openapi"], "3.1.0");
    let mut count = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let real = path
                .replace("{owner}", "fal-ai")
                .replace("{alias}", "sam-3")
                .replace("{id}", "0")
                .replace("{name}", "x");
            let reply = service.send(&method.to_uppercase(), &real, &[], Body::empty());
            assert_ne!(reply.status, 405, "{method} {path}");
            assert!(!String::from_utf8_lossy(&reply.body).contains("Path /"), "{method} {path}");
            let documented = operation["responses"].as_object().unwrap();
            assert!(documented.contains_key(&reply.status.to_string()), "{method} {path}: {}", reply.status);
            count += 1;
        }
    }
    assert!(count >= 30, "{count}");
    let text = document.to_string();
    for reference in text.match_indices("#/components/schemas/") {
        let name = text[reference.0 + 21..].split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    let schema =
        &document["paths"][IMAGE]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"];
    for (name, default) in [
        ("prompt", json!("wheel")),
        ("apply_mask", json!(true)),
        ("sync_mode", json!(false)),
        ("output_format", json!("png")),
        ("return_multiple_masks", json!(false)),
        ("max_masks", json!(3)),
        ("include_scores", json!(false)),
        ("include_boxes", json!(false)),
        ("point_prompts", json!([])),
        ("box_prompts", json!([])),
    ] {
        assert_eq!(schema[name]["default"], default, "{name}");
    }
    assert_eq!((&schema["max_masks"]["minimum"], &schema["max_masks"]["maximum"]), (&json!(1), &json!(32)));

    let nowhere = service.get("/fal-ai/sam-2/image");
    assert_eq!(nowhere.fails(404), "not_found");
    assert_eq!(nowhere.json()["detail"], "Path /fal-ai/sam-2/image not found");
    let method = service.get(IMAGE);
    assert_eq!(method.fails(405), "method_not_allowed");
    assert!(method.header("allow").contains("POST"), "{:?}", method.headers);
    let aliased = service.post("/fal-ai/sam-3-1/image-rle", &json!({ "image_url": data_uri(), "prompt": "x" }));
    aliased.ok();
}

#[test]
fn headers_are_fals_and_a_browsers() {
    let service = start(fast(), |_| {});
    let ids: Vec<String> = (0..2).map(|_| service.get("/health").header("x-fal-request-id").to_owned()).collect();
    assert!(ids[0].len() == 32 && ids[0] != ids[1]);
    let origin = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,x-fal-target-url"),
    ];
    for (method, path) in [("OPTIONS", IMAGE), ("OPTIONS", "/api/fal/proxy"), ("GET", "/health"), ("GET", "/nowhere")] {
        let headers: Vec<(&str, &str)> =
            if path == "/api/fal/proxy" { vec![("x-fal-target-url", "https://fal.run/x")] } else { origin.to_vec() };
        let reply = service.send(method, path, &headers, Body::empty());
        assert_eq!(reply.header("access-control-allow-origin"), "*", "{method} {path}");
        assert!(reply.header("access-control-allow-headers").contains("authorization"));
        assert_eq!(reply.header("access-control-expose-headers"), "*");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert!(reply.header("content-security-policy").starts_with("default-src 'none'"));
    }
    assert_eq!(service.send("OPTIONS", IMAGE, &origin, Body::empty()).status, 204);
    let page = service.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(!text.contains("http://") && !text.contains("https://"), "nothing from elsewhere");
    assert!(
        !text.contains("<script>") && !text.contains(" onclick=") && !text.contains("<style"),
        "nothing the policy forbids"
    );
    for (path, kind) in [("/app.js", "text/javascript; charset=utf-8"), ("/style.css", "text/css; charset=utf-8")] {
        assert_eq!(service.get(path).header("content-type"), kind);
    }
    assert_eq!(service.send("HEAD", "/health", &[], Body::empty()).status, 200);
}

#[test]
fn figures_are_prometheus_text() {
    let service = start(fast(), |_| {});
    service.post(RLE, &json!({ "image_url": data_uri(), "prompt": "x" })).ok();
    service.post(RLE, &json!({})).fails(422);
    let reply = service.get("/metrics");
    assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(text.contains("sam3_requests_total{route=\"/fal-ai\",status=\"200\"} 1\n"), "{text}");
    assert!(text.contains("sam3_requests_total{route=\"/fal-ai\",status=\"422\"} 1\n"), "{text}");
    assert!(text.contains("sam3_request_seconds_count{route=\"/fal-ai\"} 2\n"));
    assert!(text.contains("sam3_request_seconds_bucket{route=\"/fal-ai\",le=\"+Inf\"} 2\n"));
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("sam3_") && value.parse::<f64>().is_ok(), "{line}");
        let family = name.split('{').next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| family.strip_suffix(s)).unwrap_or(family);
        assert!(text.contains(&format!("# TYPE {base} ")), "{line}");
    }
    assert_eq!(service.figure("sam3_pictures_looks_total"), 1);
}

#[test]
fn encrypted_servers_answer_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let pem = dir.path().join("cert.pem");
    let service = start(fast(), |o| o.tls = Tls::SelfSigned(pem.clone()));
    assert!(service.server.url().starts_with("https://"));
    let plain = service.raw(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(!plain.contains("200 OK"), "{plain}");
    let text = tls_get(service.addr.port(), &pem, "/storage/upload/initiate");
    assert!(text.starts_with("HTTP/1.1 405 "), "{text}");
    let missing = dir.path().join("missing.pem");
    let mut options = sam3::serve::Options::default();
    options.addr = "127.0.0.1:0".parse().unwrap();
    options.tls = Tls::Files { cert: pem, key: missing };
    assert!(sam3::serve::Server::start(fast(), options.clone()).is_err());
    options.tls = Tls::Off;
    options.sessions = 0;
    assert!(sam3::serve::Server::start(fast(), options.clone()).is_err());
    options.sessions = 1;
    options.addr = service.addr;
    let taken = sam3::serve::Server::start(fast(), options);
    assert!(taken.is_err_and(|e| e.to_string().contains("listen")));
}

/// One GET over TLS that trusts only the certificate in `pem`.
fn tls_get(port: u16, pem: &std::path::Path, path: &str) -> String {
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring::default_provider};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pem).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut out = Vec::new();
        let _ = stream.read_to_end(&mut out).await;
        String::from_utf8_lossy(&out).into_owned()
    })
}
