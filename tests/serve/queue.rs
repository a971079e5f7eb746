//! The queue, by each of the three ways fal's clients come to it.

use std::time::Duration;

use axum::body::Body;
use serde_json::{Value, json};

use crate::harness::*;

fn local(service: &Service, url: &Value) -> String {
    url.as_str().unwrap().strip_prefix(&service.url("")).unwrap_or_else(|| panic!("{url}")).to_owned()
}

#[test]
fn requests_are_submitted_followed_and_collected() {
    let service = start(fast(), |_| {});
    let submitted = service.post("/queue/fal-ai/sam-3/image/embed", &json!({ "image_url": data_uri() })).ok();
    assert_eq!(submitted["status"], "IN_QUEUE");
    assert!(submitted["queue_position"].is_u64());
    let status = local(&service, &submitted["status_url"]);
    let id = submitted["request_id"].as_str().unwrap();
    assert_eq!(status, format!("/queue/fal-ai/sam-3/requests/{id}/status"));
    let done = service.until(&format!("{status}?logs=1"), |r| r.json()["status"] == "COMPLETED");
    assert_eq!(done.status, 200);
    let done = done.json();
    for name in ["request_id", "response_url", "status_url", "cancel_url"] {
        assert_eq!(done[name], submitted[name]);
    }
    assert!(done["logs"].as_array().unwrap().iter().any(|l| l["message"].as_str().unwrap().contains("encoded")));
    let line = &done["logs"][0];
    assert!(
        line["timestamp"].as_str().unwrap().ends_with('Z') && line["level"] == "INFO" && line["source"].is_string()
    );
    assert!(done["metrics"]["inference_time"].as_f64().unwrap() > 0.0);
    assert!(service.get(&status).json()["logs"].is_null(), "the key is there, the lines are not");
    let result = service.get(&local(&service, &submitted["response_url"])).ok();
    assert!(result["embedding_b64"].as_str().unwrap().len() > 1000);
    let late = service.send("PUT", &local(&service, &submitted["cancel_url"]), &[], Body::empty());
    assert_eq!((late.status, &late.json()["status"]), (400, &json!("ALREADY_COMPLETED")));
}

#[test]
fn mistakes_come_with_the_result() {
    let service = start(fast(), |_| {});
    let early = service.post("/queue/fal-ai/sam-3/image", &json!({ "image_url": data_uri(), "max_masks": 99 }));
    assert_eq!(early.fails(422), "less_than_equal", "a form that is wrong is wrong at once");
    assert_eq!(early.json()["detail"][0]["ctx"].to_string(), r#"{"le":32}"#);
    let submitted =
        service.post("/queue/fal-ai/sam-3/image", &json!({ "image_url": "data:image/png;base64,AAAA" })).ok();
    let status = local(&service, &submitted["status_url"]);
    let done = service.until(&status, |r| r.json()["status"] == "COMPLETED").json();
    assert!(done["error"].as_str().unwrap().contains("image_url"), "{done}");
    let result = service.get(&local(&service, &submitted["response_url"]));
    assert_eq!(result.fails(422), "image_load_error");
    for path in ["requests/0/status", "requests/0", "requests/0/status/stream"] {
        assert_eq!(service.get(&format!("/queue/fal-ai/sam-3/{path}")).fails(404), "not_found");
    }
    let other = status.replace("sam-3/", "sam-3-1/");
    service.get(&other).fails(404);
    assert_eq!(
        service.send("PUT", "/queue/fal-ai/sam-3/requests/0/cancel", &[], Body::empty()).json()["status"],
        "NOT_FOUND"
    );
}

#[test]
fn running_and_waiting_requests_are_cancelled() {
    let service = start(slow(), |o| o.sessions = 1);
    let submit = |seed| service.post("/queue/fal-ai/sam-3/image", &json!({ "image_url": fresh(seed) })).ok();
    let running = submit(1);
    let status = local(&service, &running["status_url"]);
    let waiting = submit(3);
    service.until(&status, |r| r.json()["status"] == "IN_PROGRESS" && r.status == 202);
    service.until("/metrics", |_| service.figure("sam3_sessions_busy") == 1);
    for request in [&waiting, &running] {
        let reply = service.send("PUT", &local(&service, &request["cancel_url"]), &[], Body::empty());
        assert_eq!((reply.status, &reply.json()["status"]), (202, &json!("CANCELLATION_REQUESTED")));
        let done = service.get(&local(&service, &request["status_url"])).json();
        assert_eq!((&done["status"], &done["error_type"]), (&json!("COMPLETED"), &json!("client_cancelled")));
        let result = service.get(&local(&service, &request["response_url"]));
        assert_eq!(result.fails(499), "client_cancelled");
    }
    // The session is free again long before the picture would have been done, and nothing was kept of it.
    service.until("/metrics", |_| service.figure("sam3_requests_inside") == 0);
    service.until("/metrics", |_| service.figure("sam3_sessions_busy") == 0);
    assert_eq!(service.figure("sam3_pictures_looks_total"), 0);
}

#[test]
fn statuses_stream_until_the_end() {
    let service = start(fast(), |_| {});
    let submitted =
        service.post("/queue/fal-ai/sam-3/image-rle", &json!({ "image_url": data_uri(), "prompt": "x" })).ok();
    let stream = service.get(&format!("{}/stream?logs=1", local(&service, &submitted["status_url"])));
    assert_eq!(stream.header("content-type"), "text/event-stream");
    let text = String::from_utf8(stream.body.to_vec()).unwrap();
    let events: Vec<Value> =
        text.split("\n\n").filter_map(|e| e.strip_prefix("data: ")).map(|e| serde_json::from_str(e).unwrap()).collect();
    assert_eq!(events.last().unwrap()["status"], "COMPLETED");
    let lines: Vec<&str> = events
        .iter()
        .flat_map(|e| e["logs"].as_array().into_iter().flatten())
        .map(|l| l["message"].as_str().unwrap())
        .collect();
    let mut unique = lines.clone();
    unique.dedup();
    assert!(lines.len() >= 3 && lines == unique, "each line once: {lines:?}");
}

#[test]
fn the_host_and_the_proxy_lead_to_the_same_queue() {
    let service = start(fast(), |_| {});
    let body = json!({ "image_url": data_uri(), "prompt": "x" }).to_string();
    let by_host = service.send("POST", IMAGE, &[("host", "queue.localhost:1234")], body.clone()).ok();
    let status = by_host["status_url"].as_str().unwrap().to_owned();
    let path = status.strip_prefix("http://queue.localhost:1234").unwrap();
    assert!(path.starts_with("/fal-ai/sam-3/requests/"), "{path}");
    let ask = || service.send("GET", path, &[("host", "queue.localhost:1234")], Body::empty());
    while ask().json()["status"] != "COMPLETED" {
        std::thread::sleep(Duration::from_millis(10));
    }
    let through = |method: &str, target: &str, body: Body| {
        service.send(method, "/api/fal/proxy", &[("x-fal-target-url", target)], body)
    };
    let submitted = through("POST", "https://queue.fal.run/fal-ai/sam-3/image-rle", body.clone().into()).ok();
    let id = submitted["request_id"].as_str().unwrap();
    let at = format!("https://queue.fal.run/fal-ai/sam-3/requests/{id}");
    while through("GET", &format!("{at}/status?logs=1"), Body::empty()).json()["status"] != "COMPLETED" {
        std::thread::sleep(Duration::from_millis(10));
    }
    through("GET", &at, Body::empty()).ok();
    through("POST", "https://fal.run/fal-ai/sam-3/image-rle", body.into()).ok();
    let upload =
        through("POST", "https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3", "{}".into()).ok();
    assert!(upload["upload_url"].as_str().unwrap().starts_with(&service.url("/storage/upload/put/")));
    assert_eq!(through("GET", "https://example.com/", Body::empty()).fails(400), "bad_request");
    assert_eq!(service.get("/api/fal/proxy").fails(400), "bad_request");
    let forwarded = [("x-forwarded-proto", "https"), ("x-forwarded-host", "sam.example")];
    let behind = service.send("POST", "/storage/upload/initiate", &forwarded, "{}").ok();
    assert!(behind["file_url"].as_str().unwrap().starts_with("https://sam.example/files/"));
}

#[test]
fn webhooks_are_delivered_where_that_is_allowed() {
    let receiver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", receiver.local_addr().unwrap());
    let body = json!({ "image_url": data_uri(), "prompt": "x" });
    let path = format!("/queue/fal-ai/sam-3/image-rle?fal_webhook={}", url.replace(':', "%3A").replace('/', "%2F"));
    let closed = start(fast(), |_| {});
    assert_eq!(closed.post(&path, &body).fails(400), "bad_request");
    let open = start(fast(), |o| (o.allow_fetch, o.fetch_private) = (true, true));
    let submitted = open.post(&path, &body).ok();
    let (mut stream, _) = receiver.accept().unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains("\"status\"") {
        let n = std::io::Read::read(&mut stream, &mut buffer).unwrap();
        assert!(n > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    assert!(text.starts_with("POST /hook HTTP/1.1\r\n") && text.contains("\"status\":\"OK\""), "{text}");
    assert!(text.contains(submitted["request_id"].as_str().unwrap()) && text.contains("\"payload\""));
    assert_eq!(open.post("/queue/fal-ai/sam-3/image?fal_webhook=ftp%3A%2F%2Fx", &body).fails(400), "bad_request");
}
