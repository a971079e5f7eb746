//! What the image routes answer, compared with the engine itself.

use sam3::image::Picture;
use sam3::instance::rle;
use sam3::{Prompt, SegmentOptions, Segmentation};
use serde_json::{Value, json};

use crate::harness::*;

/// The tiny model is random: nothing is above the usual threshold for sure, so requests ask for everything.
fn ask(more: Value) -> Value {
    let mut body = json!({ "image_url": data_uri(), "detection_threshold": 0.0, "return_multiple_masks": true });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// What the engine finds.
fn found(prompts: &[Prompt], change: impl FnOnce(&mut SegmentOptions)) -> Segmentation {
    let picture = Picture::open(fixture("tiny-a/input.png")).unwrap();
    let mut options = SegmentOptions::default();
    options.threshold = 0.0;
    options.max_masks = Some(3);
    change(&mut options);
    fast().session().run(&picture.view(), prompts, &options).unwrap()
}

#[test]
fn run_lengths_are_the_engines() {
    let service = start(fast(), |_| {});
    let expected = found(&[Prompt::text("red circle")], |_| {});
    let pairs: Vec<Value> = expected.instances.iter().map(|i| rle::encode_pairs(&i.mask).into()).collect();
    let body = ask(json!({ "prompt": "red circle", "include_scores": true, "include_boxes": true }));
    let out = service.post(RLE, &body).ok();
    assert_eq!(out["rle"], json!(pairs));
    assert_eq!((&out["width"], &out["height"]), (&json!(83), &json!(59)));
    for (i, instance) in expected.instances.iter().enumerate() {
        let score = out["scores"][i].as_f64().unwrap() as f32;
        assert_eq!((score, &out["metadata"][i]["score"]), (instance.score, &out["scores"][i]));
        let b: Vec<f32> = out["boxes"][i].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        let [x0, _, x1, _] = instance.bbox;
        assert!((b[0] - (x0 + x1) / 2.0 / 83.0).abs() < 1e-5 && (b[2] - (x1 - x0) / 83.0).abs() < 1e-5);
        assert_eq!(out["metadata"][i]["index"], i);
    }
    assert!(out["timings"]["encode_image"].as_f64().unwrap() > 0.0);

    let single =
        service.post(RLE, &json!({ "image_url": data_uri(), "prompt": "red circle", "detection_threshold": 0 }));
    let single = single.ok();
    assert_eq!(single["rle"], pairs[0], "one mask is text");
    assert!(single["scores"].is_null() && single["boxes"].is_null());
    assert!(single["timings"].get("encode_image").is_none(), "the picture is known: {}", single["timings"]);

    let coco = service.post(RLE, &ask(json!({ "prompt": "red circle", "rle_format": "coco" }))).ok();
    for (one, instance) in coco["rle"].as_array().unwrap().iter().zip(&expected.instances) {
        assert_eq!(one["size"], json!([59, 83]));
        let mask = rle::decode_coco(one["counts"].as_str().unwrap(), 83, 59).unwrap();
        assert_eq!(mask, instance.mask);
    }
    let none = service.post(RLE, &ask(json!({ "prompt": "red circle", "detection_threshold": 1 }))).ok();
    assert_eq!((&none["rle"], &none["metadata"]), (&json!([]), &json!([])));
}

#[test]
fn masks_are_grey_pictures_of_the_source_size() {
    let service = start(fast(), |_| {});
    let expected = found(&[Prompt::text("red circle")], |_| {});
    let out = service.post(IMAGE, &ask(json!({ "prompt": "red circle", "apply_mask": false }))).ok();
    assert_eq!(out["masks"].as_array().unwrap().len(), 3);
    assert_eq!(out["image"], out["masks"][0]);
    for (object, instance) in out["masks"].as_array().unwrap().iter().zip(&expected.instances) {
        let (picture, bytes) = picture_of(&service, object);
        // Width, height, bit depth and colour type of PNG's header: 8 bits, grey.
        assert_eq!((&bytes[1..4], bytes[24], bytes[25]), (&b"PNG"[..], 8, 0));
        let grey: Vec<u8> = picture.pixels().chunks_exact(3).map(|p| p[0]).collect();
        assert_eq!(grey, instance.mask.to_u8());
    }
}

#[test]
fn masks_are_drawn_in_every_format_and_style() {
    let service = start(fast(), |_| {});
    let source = Picture::open(fixture("tiny-a/input.png")).unwrap();
    for (format, kind, magic) in
        [("png", "image/png", &b"\x89PNG"[..]), ("jpeg", "image/jpeg", b"\xff\xd8"), ("webp", "image/webp", b"RIFF")]
    {
        for sync_mode in [true, false] {
            let body = ask(json!({ "prompt": "red circle", "output_format": format, "sync_mode": sync_mode }));
            let out = service.post(IMAGE, &body).ok();
            let (drawn, bytes) = picture_of(&service, &out["image"]);
            assert!(bytes.starts_with(magic));
            assert_eq!(out["image"]["content_type"], kind);
            assert_eq!(out["image"]["url"].as_str().unwrap().starts_with("data:"), sync_mode);
            assert_eq!((drawn.width(), drawn.height()), (83, 59));
            assert_ne!(drawn.pixels(), source.pixels());
        }
    }
    let expected = found(&[Prompt::text("red circle")], |_| {});
    let cut = service.post(IMAGE, &ask(json!({ "prompt": "red circle", "mask_style": "cutout" }))).ok();
    let (_, bytes) = picture_of(&service, &cut["masks"][0]);
    assert_eq!(bytes[25], 6, "RGBA");
    // Over white, as pictures with transparency are read.
    let (shown, _) = picture_of(&service, &cut["masks"][0]);
    for y in 0..59 {
        for x in 0..83 {
            let at = (y * 83 + x) * 3;
            let inside = expected.instances[0].mask.get(x, y);
            let pixel = if inside { &source.pixels()[at..at + 3] } else { &[255; 3] };
            assert_eq!(&shown.pixels()[at..at + 3], pixel, "{x},{y}");
        }
    }
    let jpeg = service.post(IMAGE, &ask(json!({ "mask_style": "cutout", "output_format": "jpeg" })));
    assert_eq!(jpeg.fails(422), "value_error");
}

#[test]
fn all_kinds_of_prompts_go_together() {
    let service = start(fast(), |_| {});
    let one = |prompt: Value| service.post(RLE, &ask(prompt)).ok();
    let click = one(json!({ "point_prompts": [{ "x": 30, "y": 20, "label": "1" }] }));
    let expected = found(&[Prompt::point(30.0, 20.0)], |o| o.multimask = true);
    let pairs: Vec<Value> = expected.instances.iter().map(|i| rle::encode_pairs(&i.mask).into()).collect();
    assert_eq!(click["rle"], json!(pairs), "a lone click has three meanings");

    let b = json!({ "x_min": 5, "y_min": 6, "x_max": 40, "y_max": 50 });
    let boxed = one(json!({ "box_prompts": [b] }));
    let expected = found(&[Prompt::bbox([5.0, 6.0, 40.0, 50.0])], |_| {});
    assert_eq!(boxed["rle"], json!([rle::encode_pairs(&expected.instances[0].mask)]));

    let mask = service.post(IMAGE, &json!({ "image_url": data_uri(), "box_prompts": [b], "apply_mask": false })).ok();
    let url = &mask["masks"][0]["url"];
    let refined = one(json!({ "mask_url": url, "point_prompts": [{ "x": 30, "y": 20 }] }));
    assert_eq!(refined["rle"].as_array().unwrap().len(), 1);

    let exemplar = json!({ "x_min": 4, "y_min": 6, "x_max": 30, "y_max": 40, "label": 1 });
    let like = one(json!({ "box_prompts": [exemplar] }));
    assert_eq!(like["rle"], one(json!({ "exemplars": [exemplar] }))["rle"]);
    assert_ne!(like["rle"], boxed["rle"]);

    let all = one(json!({
        "prompt": "red circle", "max_masks": 32, "box_prompts": [b, exemplar],
        "point_prompts": [{ "x": 50, "y": 50, "object_id": 2 }], "mask_prompts": [{ "mask_url": url, "object_id": 3 }],
        "include_scores": true,
    }));
    let scores: Vec<f64> = all["scores"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert!(scores.len() > 3 && scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
}

#[test]
fn embeddings_can_be_read_and_asked_again() {
    let service = start(fast(), |_| {});
    let out = service.post(EMBED, &json!({ "image_url": data_uri() })).ok();
    assert_eq!((&out["shape"], &out["dtype"]), (&json!([8, 8, 32]), &json!("float32")));
    let bytes = unbase64(out["embedding_b64"].as_str().unwrap());
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert_eq!(values.len(), 8 * 8 * 32);
    // The golden values of upstream for this picture and this level.
    let golden = std::fs::read(fixture("tiny-a/golden.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&golden).unwrap();
    let golden = golden.tensor("neck.2").unwrap();
    let expected: Vec<f32> = golden.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let worst = values.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-3, "{worst}");

    let body = ask(json!({ "prompt": "red circle" }));
    let by_url = service.post(RLE, &body).ok();
    let by_id = service.post(RLE, &json!({
        "image_id": out["image_id"], "prompt": "red circle", "detection_threshold": 0, "return_multiple_masks": true,
    }));
    assert_eq!(by_id.ok()["rle"], by_url["rle"]);
    assert_eq!(service.post(RLE, &json!({ "image_id": "0".repeat(32) })).fails(422), "image_not_found");
    assert_eq!(service.figure("sam3_pictures_looks_total"), 1);
}

#[test]
fn every_kind_of_picture_is_read_and_every_other_refused() {
    let service = start(fast(), |_| {});
    for name in ["420.jpg", "rgb.png", "lossy.webp", "animated.gif", "420-full.avif", "turned-6.jpg"] {
        let bytes = std::fs::read(fixture("images/files").join(name)).unwrap();
        let url = format!("data:application/octet-stream;base64,{}", base64(&bytes));
        service.post(RLE, &json!({ "image_url": url, "prompt": "x" })).ok();
    }
    for (url, kind) in [
        ("data:image/png;base64,AAAA".to_owned(), "image_load_error"),
        ("data:image/png;base64,!".to_owned(), "image_load_error"),
        ("data:image/png;base64,".to_owned(), "image_load_error"),
        (format!("{}AAAA", &data_uri()[..80]), "image_load_error"),
        ("nonsense".to_owned(), "file_download_error"),
        ("file:///etc/passwd".to_owned(), "file_download_error"),
        ("http://127.0.0.1/x.png".to_owned(), "file_download_error"),
        ("https://example.com/x.png".to_owned(), "file_download_error"),
        ("/files/00000000000000000000000000000000/x.png".to_owned(), "file_download_error"),
    ] {
        let reply = service.post(IMAGE, &json!({ "image_url": url }));
        assert_eq!(reply.fails(422), kind, "{url}");
        assert_eq!(reply.json()["detail"][0]["loc"], json!(["body", "image_url"]));
        assert_eq!((reply.header("x-fal-retryable"), reply.header("x-fal-billable-units")), ("false", "0"));
    }
}

#[test]
fn uploads_are_announced_sent_and_used() {
    let dir = tempfile::tempdir().unwrap();
    for place in [None, Some(dir.path().to_path_buf())] {
        let service = start(fast(), |o| o.dir = place.clone());
        let announced = service.post(
            "/storage/upload/initiate?storage_type=x",
            &json!({ "content_type": "image/png", "file_name": "../p.png" }),
        );
        let announced = announced.ok();
        let path = |name: &str| announced[name].as_str().unwrap().strip_prefix(&service.url("")).unwrap().to_owned();
        assert!(path("file_url").ends_with("/p.png"));
        assert_eq!(service.get(&path("file_url")).status, 404);
        let put = || service.send("PUT", &path("upload_url"), &[("content-type", "image/png")], input());
        assert_eq!(put().status, 200);
        put().fails(404);
        let back = service.get(&path("file_url"));
        assert_eq!((back.body.to_vec(), back.header("content-type")), (input(), "image/png"));
        assert!(back.header("content-security-policy").contains("sandbox"));
        assert!(back.header("content-disposition").contains("p.png"));
        let out = service.post(RLE, &json!({ "image_url": announced["file_url"], "prompt": "x" })).ok();
        assert_eq!(out["width"], 83);
        service.server.stop();
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}
