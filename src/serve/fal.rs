//! fal's routes: endpoints and the queue; uploads are in `storage`.
//!
//! Of fal's request headers, `x-fal-request-timeout` is obeyed; `x-fal-queue-priority`, `x-fal-runner-hint`,
//! `x-fal-object-lifecycle-preference` and `x-fal-store-io` are accepted and change nothing: there is one runner, one
//! queue, and one lifetime. The realtime socket and `/stream` are not offered: an endpoint's answer comes in one piece.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use axum::routing::{get, post, put};
use futures_util::stream;
use serde_json::{Value, json};

use super::app::{App, Notes, Place};
use super::error::{ApiError, ApiResult, json_response};
use super::fetch;
use super::http::{Ctx, query};
use super::queue::{self, Cancelled, Submitted};
use super::run::{ENDPOINTS, Endpoint};

/// Most tries to deliver to a webhook, as fal's, and the longest pause between two: all together somewhat over 2 hours.
const DELIVERIES: u32 = 10;
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 60);

/// How often a stream of statuses says that it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The routes.
pub fn routes() -> Router<Arc<App>> {
    let mut router = Router::new()
        .route("/queue/{owner}/{alias}/requests/{id}", get(result))
        .route("/queue/{owner}/{alias}/requests/{id}/status", get(status))
        .route("/queue/{owner}/{alias}/requests/{id}/status/stream", get(status_stream))
        .route("/queue/{owner}/{alias}/requests/{id}/cancel", put(cancel));
    for (path, endpoint) in ENDPOINTS {
        router = router
            .route(&format!("/{path}"), post(call).layer(Extension(endpoint)))
            .route(&format!("/queue/{path}"), post(submit).layer(Extension((path, endpoint))));
    }
    router
}

/// A handler's answer.
pub fn reply(result: ApiResult<Value>) -> Response<Body> {
    match result {
        Ok(value) => json_response(StatusCode::OK, &value),
        Err(e) => e.response(),
    }
}

/// An endpoint, called and waited for.
async fn call(
    State(app): State<Arc<App>>,
    Extension(ctx): Extension<Ctx>,
    Extension(endpoint): Extension<Endpoint>,
    request: Request<Body>,
) -> Response<Body> {
    let notes = Arc::<Notes>::default();
    reply(
        ctx.work(&app, notes, async |work| {
            let (_place, body) = app.enter(request).await?;
            endpoint.run(&app, &work, body.bytes.clone()).await
        })
        .await,
    )
}

/// An endpoint, submitted to the queue.
async fn submit(
    State(app): State<Arc<App>>,
    Extension(ctx): Extension<Ctx>,
    Extension((path, endpoint)): Extension<(&'static str, Endpoint)>,
    request: Request<Body>,
) -> Response<Body> {
    let submitted = async {
        let webhook = query(request.uri(), "fal_webhook").filter(|w| !w.is_empty());
        if let Some(url) = &webhook {
            if !app.fetch.allowed() {
                let detail = "fal_webhook: this server sends nothing anywhere (it was started without --allow-fetch)";
                return Err(ApiError::bad_request(detail));
            }
            fetch::parse(url).map_err(|e| ApiError::bad_request(format!("fal_webhook: {e}")))?;
        }
        let (place, body) = app.enter(request).await?;
        // fal tells of such mistakes with the result. Clients raise the same error either way, and sooner is better.
        endpoint.check(&body.bytes)?;
        let app_id = path.split('/').take(2).collect::<Vec<_>>().join("/");
        let queued = app.requests.submit(&ctx.id, &app_id);
        let urls = urls(&ctx, &app_id, &ctx.id);
        let mut out = urls.clone();
        out["status"] = "IN_QUEUE".into();
        out["queue_position"] = app.requests.position(&queued).into();
        let (app, id) = (app.clone(), ctx.id.clone());
        tokio::spawn(async move {
            let outcome = run_queued(&app, &ctx, endpoint, &queued, body, place).await;
            if let Some(cause) = outcome.as_ref().err().and_then(ApiError::cause) {
                app.log.failed(&id, cause);
            }
            queued.end(outcome);
            if let Some(url) = webhook {
                deliver(&app, &url, &id, &queued).await;
            }
        });
        Ok(out)
    };
    reply(submitted.await)
}

/// Runs a submitted request, unless it is cancelled; either way its place and its body are given back.
async fn run_queued(
    app: &Arc<App>,
    ctx: &Ctx,
    endpoint: Endpoint,
    queued: &Arc<Submitted>,
    body: super::app::Intake,
    _place: Place,
) -> ApiResult<Value> {
    let mut state = queued.watch();
    let work = ctx.work(app, queued.notes.clone(), async |work| {
        if !queued.begin(&work) {
            return Err(ApiError::cancelled());
        }
        endpoint.run(app, &work, body.bytes.clone()).await
    });
    tokio::select! {
        result = work => result,
        // Cancelled: dropping the work stops what it waits for.
        _ = state.wait_for(|s| matches!(s, queue::State::Done(_))) => Err(ApiError::cancelled()),
    }
}

/// What all replies of the queue have: the request's id and where to ask for more.
fn urls(ctx: &Ctx, app_id: &str, id: &str) -> Value {
    let at = format!("{}{}/{app_id}/requests/{id}", ctx.base, ctx.queue_prefix);
    json!({
        "request_id": id,
        "response_url": at,
        "status_url": format!("{at}/status"),
        "cancel_url": format!("{at}/cancel"),
    })
}

/// The request of a queue URL.
fn find(app: &App, owner: &str, alias: &str, id: &str) -> ApiResult<Arc<Submitted>> {
    let found = app.requests.get(id).filter(|r| r.app_id == format!("{owner}/{alias}"));
    found.ok_or_else(|| ApiError::not_found("Request not found: it was never here, or its time is over"))
}

/// Whether the caller wants the log.
fn wants_logs(uri: &Uri) -> Option<usize> {
    query(uri, "logs").is_some_and(|v| v == "1" || v.eq_ignore_ascii_case("true")).then_some(0)
}

type RequestPath = Path<(String, String, String)>;

async fn status(
    State(app): State<Arc<App>>,
    Extension(ctx): Extension<Ctx>,
    Path((owner, alias, id)): RequestPath,
    uri: Uri,
) -> Response<Body> {
    match find(&app, &owner, &alias, &id) {
        Err(e) => e.response(),
        Ok(queued) => {
            let state = queued.state();
            let code = if matches!(state, queue::State::Done(_)) { StatusCode::OK } else { StatusCode::ACCEPTED };
            let urls = urls(&ctx, &queued.app_id, &id);
            json_response(code, &queued.status(&state, &urls, app.requests.position(&queued), wants_logs(&uri)))
        }
    }
}

/// Statuses as server-sent events, one for every change; each brings the lines of the log since the last.
async fn status_stream(
    State(app): State<Arc<App>>,
    Extension(ctx): Extension<Ctx>,
    Path((owner, alias, id)): RequestPath,
    uri: Uri,
) -> Response<Body> {
    let queued = match find(&app, &owner, &alias, &id) {
        Err(e) => return e.response(),
        Ok(queued) => queued,
    };
    let urls = urls(&ctx, &queued.app_id, &id);
    let logs = wants_logs(&uri);
    let state = queued.watch();
    let first = Some((state, 0, true));
    let events = stream::unfold(first, move |at| {
        let (app, queued, urls) = (app.clone(), queued.clone(), urls.clone());
        async move {
            let (mut watch, said, fresh) = at?;
            if !fresh {
                match tokio::time::timeout(KEEP_ALIVE, watch.changed()).await {
                    Err(_) => return Some((Ok(Bytes::from_static(b": still here\n\n")), Some((watch, said, false)))),
                    Ok(Err(_)) => return None,
                    Ok(Ok(())) => {}
                }
            }
            let state = watch.borrow_and_update().clone();
            let lines = queued.notes.lines(said).len();
            let status = queued.status(&state, &urls, app.requests.position(&queued), logs.map(|_| said));
            let next = match state {
                queue::State::Done(_) => None,
                _ => Some((watch, if logs.is_some() { said + lines } else { 0 }, false)),
            };
            let event = Bytes::from(format!("data: {status}\n\n"));
            Some((Ok::<_, std::convert::Infallible>(event), next))
        }
    });
    let mut response = Response::new(Body::from_stream(events));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

async fn result(State(app): State<Arc<App>>, Path((owner, alias, id)): RequestPath) -> Response<Body> {
    let result = find(&app, &owner, &alias, &id).and_then(|queued| match queued.state() {
        queue::State::Done(outcome) => outcome.result.clone(),
        _ => Err(ApiError::bad_request("Request is still in progress")),
    });
    reply(result)
}

async fn cancel(State(app): State<Arc<App>>, Path((owner, alias, id)): RequestPath) -> Response<Body> {
    match find(&app, &owner, &alias, &id).map(|queued| queued.cancel()) {
        Ok(Cancelled::Requested) => json_response(StatusCode::ACCEPTED, &json!({ "status": "CANCELLATION_REQUESTED" })),
        Ok(Cancelled::TooLate) => json_response(StatusCode::BAD_REQUEST, &json!({ "status": "ALREADY_COMPLETED" })),
        Err(_) => json_response(StatusCode::NOT_FOUND, &json!({ "status": "NOT_FOUND" })),
    }
}

/// Tells a webhook how its request ended, several times if it does not listen.
async fn deliver(app: &App, url: &str, id: &str, queued: &Submitted) {
    let queue::State::Done(outcome) = queued.state() else { return };
    let Ok(_pending) = app.deliveries.try_acquire() else {
        return app.log.warn("webhook", &format!("request {id}: not delivered, too many are pending"));
    };
    let (status, payload, error) = match &outcome.result {
        Ok(value) => ("OK", value.clone(), Value::Null),
        Err(e) => ("ERROR", e.body().clone(), e.words().into()),
    };
    drop(outcome);
    let mut body = json!({ "request_id": id, "gateway_request_id": id, "status": status, "payload": payload });
    if !error.is_null() {
        body["error"] = error;
    }
    let body = Bytes::from(body.to_string());
    let mut pause = Duration::from_secs(2);
    for attempt in 1..=DELIVERIES {
        match app.fetch.deliver(url, body.clone()).await {
            Ok(()) => return,
            Err(e) => app.log.warn("webhook", &format!("request {id}, delivery {attempt} of {DELIVERIES}: {e}")),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3).min(LONGEST_PAUSE);
    }
}
