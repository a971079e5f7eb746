//! `/openapi.json`: requests from the schemas that check them, answers as they are written here and compared with real
//! ones in the tests.

use serde_json::{Map, Value, json};

use super::run::{ENDPOINTS, Endpoint};
use super::schema::Kind;
use super::{anylabeling, input, playground, roboflow, storage};

/// What may go wrong wherever work is done.
const ERRORS: [(&str, &str); 12] = [
    ("400", "The request is no request: a broken body, a wrong header."),
    ("401", "An API key is asked for."),
    ("404", "Not here, or not here any more."),
    ("408", "The body did not arrive in time."),
    ("413", "The body is too long."),
    ("422", "A field is wrong."),
    ("429", "The queue is full; Retry-After says when to try again."),
    ("499", "The request was cancelled."),
    ("500", "A defect of the server."),
    ("503", "The server is shutting down, or out of memory."),
    ("504", "The deadline passed."),
    ("507", "No room for results."),
];

/// A picture to try: a red square of 8 × 8 pixels in the middle of 16 × 16.
const PICTURE: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAMAAAAoLQ9TAAAABlBMVEX19fDcKCgK8TLrAAAA\
                       E0lEQVR42mNgoBJghIKBFqAQAAAjEABBfeP81wAAAABJRU5ErkJggg==";

/// The document, for a server at `base`.
pub fn document(base: &str) -> Value {
    let mut paths = Map::new();
    for (path, endpoint) in ENDPOINTS {
        let (input, output, about) = match endpoint {
            Endpoint::Image => (input::image_schema(), "Images", "Segments a picture; answers with pictures of masks."),
            Endpoint::Rle => (input::image_schema(), "RunLengths", "Segments a picture; answers with run lengths."),
            Endpoint::Embed => (input::embed_schema(), "Embedding", "The features of a picture."),
        };
        let mut example = json!({ "image_url": PICTURE });
        if endpoint != Endpoint::Embed {
            example["prompt"] = "red square".into();
            example["point_prompts"] = json!([{ "x": 8, "y": 8, "label": 1 }]);
        }
        let called = operation(about, Some(&input), &reference(output));
        paths.insert(format!("/{path}"), json!({ "post": shown(called, &example) }));
        let about = format!("The same, submitted to the queue. {about}");
        let submitted = operation(&about, Some(&input), &reference("Submitted"));
        paths.insert(format!("/queue/{path}"), json!({ "post": shown(submitted, &example) }));
    }
    for (path, value) in queue_paths().into_iter().chain(other_paths()) {
        paths.insert(path.to_owned(), value);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "sam3",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Segment Anything 3 behind fal's API, and what this server adds to it.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": base }],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "key": { "type": "apiKey", "in": "header", "name": "Authorization", "description": "Key <key>, where the server asks for one" },
            },
        },
        "security": [{}, { "key": [] }],
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn json_content(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

/// An operation that takes JSON, if anything, and answers with JSON.
fn operation(summary: &str, body: Option<&Kind>, output: &Value) -> Value {
    let mut responses = Map::new();
    responses.insert("200".into(), json!({ "description": "Done.", "content": json_content(output) }));
    for (status, about) in ERRORS {
        responses.insert(status.into(), json!({ "description": about, "content": json_content(&reference("Error")) }));
    }
    let mut out = json!({ "summary": summary, "responses": responses });
    if let Some(kind) = body {
        out["requestBody"] = json!({ "required": true, "content": json_content(&kind.schema()) });
    }
    out
}

/// An operation with a body that works, for people and programs that try it.
fn shown(mut operation: Value, example: &Value) -> Value {
    operation["requestBody"]["content"]["application/json"]["example"] = example.clone();
    operation
}

fn parameter(name: &str, place: &str, schema: &Value) -> Value {
    json!({ "name": name, "in": place, "required": place == "path", "schema": schema })
}

fn with(mut operation: Value, parameters: &[Value]) -> Value {
    operation["parameters"] = json!(parameters);
    operation
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn queue_paths() -> Vec<(&'static str, Value)> {
    let at = ["owner", "alias", "id"].map(|n| parameter(n, "path", &text()));
    let mut with_logs = at.to_vec();
    with_logs.push(parameter("logs", "query", &json!({ "enum": ["0", "1", "true", "false"] })));
    let mut status = with(operation("Where a request is.", None, &reference("Status")), &with_logs);
    status["responses"]["202"] =
        json!({ "description": "Not done yet.", "content": json_content(&reference("Status")) });
    let mut stream =
        with(operation("Where a request is, told again whenever that changes.", None, &text()), &with_logs);
    stream["responses"]["200"] = json!({ "description": "Statuses.", "content": { "text/event-stream": { "schema": { "type": "object", "properties": { "data": text() } } } } });
    let cancelled = json!({ "type": "object", "properties": { "status": text() }, "required": ["status"] });
    let mut cancel = with(operation("Cancels a request.", None, &cancelled), &at);
    cancel["responses"]["202"] = json!({ "description": "It is stopped.", "content": json_content(&cancelled) });
    for code in ["400", "404"] {
        let schema = json!({ "anyOf": [cancelled, reference("Error")] });
        cancel["responses"][code] =
            json!({ "description": "Too late, or not here.", "content": json_content(&schema) });
    }
    let result = with(operation("What came of a request.", None, &json!({ "type": "object" })), &at);
    vec![
        ("/queue/{owner}/{alias}/requests/{id}", json!({ "get": result })),
        ("/queue/{owner}/{alias}/requests/{id}/status", json!({ "get": status })),
        ("/queue/{owner}/{alias}/requests/{id}/status/stream", json!({ "get": stream })),
        ("/queue/{owner}/{alias}/requests/{id}/cancel", json!({ "put": cancel })),
    ]
}

fn other_paths() -> Vec<(&'static str, Value)> {
    let object = json!({ "type": "object" });
    let id = parameter("id", "path", &text());
    let binary = json!({ "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } });
    let mut put = with(operation("Receives an upload.", None, &object), std::slice::from_ref(&id));
    put["requestBody"] = json!({ "required": true, "content": binary });
    let mut at_once = operation("Receives an upload in one request.", None, &reference("Uploaded"));
    at_once["parameters"] = json!([parameter("x-fal-file-name", "header", &text())]);
    at_once["requestBody"] = put["requestBody"].clone();
    let mut file =
        with(operation("A result or an upload.", None, &text()), &[id.clone(), parameter("name", "path", &text())]);
    file["responses"]["200"] = json!({ "description": "The file.", "content": { "*/*": { "schema": { "type": "string", "format": "binary" } } } });
    let mut take = operation(
        "Takes a picture for the playground: the file itself, or JSON.",
        Some(&input::embed_schema()),
        &reference("Picture"),
    );
    take = shown(take, &json!({ "image_url": PICTURE }));
    take["requestBody"]["content"]["image/*"] = binary["application/octet-stream"].clone();
    let image = json!({ "type": "base64", "value": PICTURE });
    let embed = operation("Roboflow: looks at a picture.", Some(&roboflow::embed_schema()), &object);
    let concept = operation("Roboflow: concepts.", Some(&roboflow::concept_schema()), &object);
    let visual = operation("Roboflow: objects.", Some(&roboflow::visual_schema()), &object);
    let mut picture = with(operation("A picture that is held, as PNG.", None, &text()), std::slice::from_ref(&id));
    picture["responses"]["200"] = json!({ "description": "The picture.", "content": { "image/png": { "schema": { "type": "string", "format": "binary" } } } });
    let mut figures = operation("Figures for Prometheus.", None, &text());
    figures["responses"]["200"] =
        json!({ "description": "Figures.", "content": { "text/plain": { "schema": text() } } });
    let shapes = json!({ "type": "object", "required": ["success", "data"] });
    let predict = operation("X-AnyLabeling: shapes.", Some(&anylabeling::schema()), &shapes);
    let asked = json!({ "image": PICTURE, "params": { "text_prompt": "square" } });
    vec![
        (
            "/storage/upload/initiate",
            json!({ "post": operation("Announces an upload.", Some(&storage::initiate_schema()), &reference("Upload")) }),
        ),
        ("/storage/upload/put/{id}", json!({ "put": put })),
        (
            "/storage/auth/token",
            json!({ "post": operation("What an upload at once brings along.", None, &reference("Token")) }),
        ),
        ("/files/upload", json!({ "post": at_once })),
        ("/files/{id}/{name}", json!({ "get": file })),
        ("/api/images/{id}/picture", json!({ "get": picture })),
        ("/api/info", json!({ "get": operation("What the server is.", None, &object) })),
        ("/api/images", json!({ "post": take })),
        (
            "/api/images/{id}",
            json!({ "get": with(operation("Whether a picture is held.", None, &reference("Picture")), std::slice::from_ref(&id)) }),
        ),
        (
            "/api/images/{id}/segment",
            json!({ "post": with(operation("Answers prompts on a picture.", Some(&playground::schema()), &reference("Found")), &[id]) }),
        ),
        ("/sam3/embed_image", json!({ "post": shown(embed, &json!({ "image": image })) })),
        (
            "/sam3/concept_segment",
            json!({ "post": shown(concept, &json!({ "image": image, "prompts": [{ "type": "text", "text": "square" }] })) }),
        ),
        (
            "/sam3/visual_segment",
            json!({ "post": shown(visual, &json!({ "image": image, "prompts": [{ "points": [{ "x": 8, "y": 8 }] }] })) }),
        ),
        ("/v1/models", json!({ "get": operation("X-AnyLabeling: what there is.", None, &shapes) })),
        ("/v1/predict", json!({ "post": shown(predict, &asked) })),
        ("/health", json!({ "get": operation("Whether the server is there.", None, &object) })),
        ("/ready", json!({ "get": operation("Whether the server takes requests.", None, &object) })),
        ("/metrics", json!({ "get": figures })),
        ("/openapi.json", json!({ "get": operation("This document.", None, &object) })),
    ]
}

fn nullable(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn object(properties: &Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required })
}

/// Forms of answers.
fn schemas() -> Value {
    let (number, integer) = (json!({ "type": "number" }), json!({ "type": "integer" }));
    let list = |of: &Value| json!({ "type": "array", "items": of });
    let four = json!({ "type": "array", "items": number, "minItems": 4, "maxItems": 4 });
    let timings = json!({ "type": "object", "additionalProperties": number, "description": "Seconds per stage." });
    let picture = object(
        &json!({
            "url": text(), "content_type": text(), "file_name": text(), "file_size": integer,
            "width": integer, "height": integer,
        }),
        &["url"],
    );
    let metadata = object(&json!({ "index": integer, "score": number, "box": four }), &["index"]);
    let common = json!({
        "metadata": list(&metadata),
        "scores": nullable(&list(&number)),
        "boxes": nullable(&list(&four)),
        "width": integer, "height": integer, "timings": timings,
    });
    let mut images = common.clone();
    images["image"] = nullable(&reference("Image"));
    images["masks"] = list(&reference("Image"));
    let coco = object(&json!({ "size": list(&integer), "counts": text() }), &["size", "counts"]);
    let mut lengths = common;
    lengths["rle"] = json!({ "anyOf": [text(), coco, list(&json!({ "anyOf": [text(), coco] }))] });
    lengths["boundingbox_frames_zip"] = json!({ "type": "null" });
    let instance = object(
        &json!({
            "score": number, "box": four, "area": integer, "prompt": integer, "rle": text(),
            "mask_id": nullable(&text()),
        }),
        &["score", "box", "area", "prompt", "rle"],
    );
    let urls = json!({ "request_id": text(), "response_url": text(), "status_url": text(), "cancel_url": text() });
    let mut status = urls.clone();
    status["status"] = json!({ "enum": ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"] });
    status["queue_position"] = integer.clone();
    status["logs"] = nullable(&list(&json!({ "type": "object" })));
    status["metrics"] = json!({ "type": "object" });
    status["error"] = text();
    status["error_type"] = text();
    let all = ["status", "request_id", "response_url", "status_url", "cancel_url"];
    let field = object(
        &json!({ "loc": list(&json!({ "type": ["string", "integer"] })), "msg": text(), "type": text(), "url": text() }),
        &["loc", "msg", "type", "url"],
    );
    let embedding = object(
        &json!({
            "embedding_b64": text(), "shape": list(&integer), "dtype": text(), "layout": text(), "model": text(),
            "image_id": text(), "width": integer, "height": integer, "timings": timings,
        }),
        &["embedding_b64"],
    );
    json!({
        "Image": picture,
        "Images": object(&images, &["masks"]),
        "RunLengths": object(&lengths, &["rle"]),
        "Embedding": embedding,
        "Submitted": object(&status, &all),
        "Status": object(&status, &all),
        "Upload": object(&json!({ "upload_url": text(), "file_url": text() }), &["upload_url", "file_url"]),
        "Uploaded": object(&json!({ "access_url": text() }), &["access_url"]),
        "Token": object(
            &json!({ "token": text(), "token_type": text(), "base_url": text(), "expires_at": text() }),
            &["token", "token_type", "base_url", "expires_at"],
        ),
        "Picture": object(
            &json!({ "image_id": text(), "width": integer, "height": integer, "cached": { "type": "boolean" }, "timings": timings }),
            &["image_id", "width", "height"],
        ),
        "Found": object(
            &json!({ "width": integer, "height": integer, "instances": list(&instance), "prompts": list(&json!({ "type": "object" })), "timings": timings }),
            &["width", "height", "instances", "prompts"],
        ),
        "Error": object(
            &json!({ "detail": { "anyOf": [text(), list(&field)] }, "error_type": text() }),
            &["detail"],
        ),
    })
}
