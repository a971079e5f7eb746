//! Panics in the middle of traffic: in sessions, beside them, and in handlers. Only a test inside of the crate can cause
//! them, since no request is known that does.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use axum::routing::get;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::app::App;
use super::pool::{Failure, Ticket};
use super::source::encode_base64;
use super::{Options, http, metrics, routes};
use crate::{Device, Model, ModelOptions};

const CALLERS: usize = 4;
const CALLS: usize = 8;

async fn ask(app: &Arc<App>, router: &Router, path: &str, body: Option<&Value>) -> (u16, Value) {
    let request = match body {
        Some(body) => Request::post(path).body(Body::from(body.to_string())),
        None => Request::get(path).body(Body::empty()),
    };
    let reply = http::answer(app.clone(), router.clone(), request.unwrap(), false).await;
    let (head, body) = reply.into_parts();
    (head.status.as_u16(), serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap())
}

#[test]
fn whatever_panics_the_others_are_answered() {
    let model = Model::open("tests/fixtures/tiny-a", &ModelOptions::on(Device::Cpu).threads(1)).unwrap();
    let mut options = Options::default();
    options.log = false;
    let app = Arc::new(App::new(model, options).unwrap());
    let broken = || async { if true { panic!("on purpose") } else { Response::new(Body::empty()) } };
    let router = routes(app.clone()).route("/broken", get(broken));
    let file = std::fs::read("tests/fixtures/tiny-a/input.png").unwrap();
    let body = json!({
        "image_url": format!("data:image/png;base64,{}", encode_base64(&file)),
        "prompt": "red circle", "detection_threshold": 0,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (status, expected) = ask(&app, &router, "/fal-ai/sam-3/image-rle", Some(&body)).await;
        assert_eq!(status, 200);
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (app, router, body, rle) = (app.clone(), router.clone(), body.clone(), expected["rle"].clone());
                tokio::spawn(async move {
                    for _ in 0..CALLS {
                        let (status, out) = ask(&app, &router, "/fal-ai/sam-3/image-rle", Some(&body)).await;
                        assert_eq!((status, &out["rle"]), (200, &rle));
                    }
                })
            })
            .collect();
        for _ in 0..CALLS {
            let ticket = Ticket::until(Instant::now() + Duration::from_secs(100));
            let job = app.pool.run(&ticket, |_| -> crate::Result<()> { panic!("on purpose") }).await;
            assert!(matches!(job, Err(Failure::Panicked)), "{job:?}");
            let beside = app.blocking(|| panic!("on purpose")).await;
            assert_eq!(beside.map(|()| 0).unwrap_err().status().as_u16(), 500);
            let (status, out) = ask(&app, &router, "/broken", None).await;
            assert_eq!((status, &out["error_type"]), (500, &json!("internal_error")));
            assert!(!out.to_string().contains("purpose"), "{out}");
        }
        for caller in callers {
            caller.await.unwrap();
        }
    });
    assert_eq!(app.inside(), 0);
    assert!(!app.draining.load(Ordering::Relaxed));
    let figures = metrics::text(&app);
    assert!(figures.contains(&format!("\nsam3_panics_total {}\n", 3 * CALLS)), "{figures}");
}
