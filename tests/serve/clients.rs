//! The routes of other clients, as those clients speak; the clients themselves run in `tests/clients`.

use sam3::image::Picture;
use sam3::instance::rle;
use sam3::{Concept, ExemplarBox, Prompt, SegmentOptions};
use serde_json::{Value, json};

use crate::harness::*;

fn image() -> Value {
    json!({ "type": "base64", "value": base64(&input()) })
}

#[test]
fn roboflow_concepts() {
    let service = start(fast(), |_| {});
    let embedded = service.post("/sam3/embed_image?api_key=x", &json!({ "api_key": "x", "image": image() })).ok();
    assert!(embedded["image_id"].as_str().unwrap().len() == 32 && embedded["time"].as_f64().unwrap() > 0.0);
    let named = service.post("/sam3/embed_image", &json!({ "image": image(), "image_id": "mine" })).ok();
    assert_eq!(named["image_id"], "mine");
    let ask = |format: &str, nms: Option<f32>| {
        let prompts = json!([
            { "type": "text", "text": "red circle" },
            { "type": "visual", "boxes": [{ "x": 4, "y": 6, "width": 26, "height": 34 }, { "x0": 20, "y0": 30, "x1": 44, "y1": 58 }], "box_labels": [1, 0] },
            { "type": "text", "text": "red circle", "output_prob_thresh": 1.0 },
        ]);
        let body = json!({
            "image": image(), "model_id": "sam3/sam3_final", "prompts": prompts, "output_prob_thresh": 0.0, "format": format,
            "nms_iou_threshold": nms,
        });
        service.post("/sam3/concept_segment", &body).ok()
    };
    let out = ask("rle", None);
    let picture = Picture::open(fixture("tiny-a/input.png")).unwrap();
    let exemplars = vec![
        ExemplarBox { xyxy: [4.0, 6.0, 30.0, 40.0], positive: true },
        ExemplarBox { xyxy: [20.0, 30.0, 44.0, 58.0], positive: false },
    ];
    let mut options = SegmentOptions::default();
    options.threshold = 0.0;
    let expected = [Prompt::text("red circle"), Concept { text: None, exemplars }.into()]
        .map(|p| fast().session().run(&picture.view(), &[p], &options).unwrap());
    for (i, answer) in expected.iter().enumerate() {
        let result = &out["prompt_results"][i];
        assert_eq!((&result["prompt_index"], &result["echo"]["prompt_index"]), (&json!(i), &json!(i)));
        let predictions = result["predictions"].as_array().unwrap();
        assert_eq!(predictions.len(), answer.instances.len());
        for (p, instance) in predictions.iter().zip(&answer.instances) {
            assert_eq!((&p["format"], p["confidence"].as_f64().unwrap() as f32), (&json!("rle"), instance.score));
            let mask = rle::decode_coco(p["masks"]["counts"].as_str().unwrap(), 83, 59).unwrap();
            assert_eq!(mask, instance.mask);
        }
    }
    assert_eq!(out["prompt_results"][1]["echo"]["num_boxes"], 2);
    assert_eq!(out["prompt_results"][2]["predictions"], json!([]));
    let polygons = ask("polygon", None);
    let ring = polygons["prompt_results"][0]["predictions"][0]["masks"][0].as_array();
    assert!(ring.is_none_or(|r| r.len() >= 3 && r[0].as_array().unwrap().len() == 2));
    let count = |v: &Value| {
        v["prompt_results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["predictions"].as_array().unwrap().len())
            .sum::<usize>()
    };
    assert!(count(&ask("rle", Some(0.0))) < count(&out), "overlaps are suppressed");
    assert_eq!(service.figure("sam3_pictures_looks_total"), 1);
    let wrong = json!({ "image": image(), "prompts": [{ "boxes": [{ "x": 1 }], "type": "visual" }] });
    assert_eq!(service.post("/sam3/concept_segment", &wrong).fails(422), "value_error");
    let broken = json!({ "image": { "type": "base64", "value": "!!" }, "prompts": [{ "text": "x" }] });
    assert_eq!(service.post("/sam3/concept_segment", &broken).fails(422), "image_load_error");
}

#[test]
fn roboflow_objects() {
    let service = start(fast(), |_| {});
    let prompts = json!([
        { "points": [{ "x": 30, "y": 20, "positive": true }, { "x": 50, "y": 5, "positive": false }] },
        { "box": { "x": 22.5, "y": 28, "width": 35, "height": 44 } },
    ]);
    let ask = |p: Value, multimask: bool| {
        let body = json!({ "image": image(), "prompts": p, "multimask_output": multimask, "format": "rle" });
        service.post("/sam3/visual_segment", &body)
    };
    let out = ask(json!({ "prompts": prompts }), false).ok();
    assert_eq!(out["predictions"].as_array().unwrap().len(), 2);
    let picture = Picture::open(fixture("tiny-a/input.png")).unwrap();
    let expected =
        fast().session().run(&picture.view(), &[Prompt::bbox([5.0, 6.0, 40.0, 50.0])], &SegmentOptions::default());
    assert_eq!(out["predictions"][1]["masks"]["counts"], rle::encode_coco(&expected.unwrap().instances[0].mask));
    assert_eq!(ask(prompts.clone(), false).ok()["predictions"], out["predictions"], "a plain list is the same");
    assert_eq!(ask(prompts, true).ok()["predictions"].as_array().unwrap().len(), 2);
    for wrong in [json!({}), json!([{}]), json!("x"), json!([{ "points": [{ "x": 500, "y": 1 }] }])] {
        ask(wrong, true).fails(422);
    }
}

#[test]
fn x_anylabeling_shapes() {
    let service = start(fast(), |_| {});
    let models = service.send("GET", "/v1/models", &[("token", "")], axum::body::Body::empty()).ok();
    let model = &models["data"]["segment_anything_3"];
    assert_eq!(model["batch_processing_mode"], "text_prompt");
    assert!(
        model["display_name"].is_string() && model["widgets"].as_array().unwrap().iter().all(|w| w["name"].is_string())
    );
    let ask = |params: Value| {
        let body = json!({ "model": "segment_anything_3", "image": data_uri(), "params": params });
        let out = service.post("/v1/predict", &body).ok();
        assert_eq!(out["success"], true);
        out["data"]["shapes"].as_array().unwrap().clone()
    };
    let shapes = ask(
        json!({ "text_prompt": "red circle, dog", "conf_threshold": 0.001, "iou_threshold": 0.0, "epsilon_factor": 0.001, "show_boxes": true }),
    );
    assert!(
        shapes.iter().any(|s| s["label"] == "red circle") && shapes.iter().any(|s| s["label"] == "dog"),
        "{shapes:?}"
    );
    for shape in &shapes {
        let points = shape["points"].as_array().unwrap();
        match shape["shape_type"].as_str().unwrap() {
            "polygon" => assert!(points.len() >= 4 && points.first() == points.last()),
            "rectangle" => assert_eq!(points.len(), 4),
            other => panic!("{other}"),
        }
        assert!(shape["score"].is_number());
    }
    let click = ask(json!({ "marks": [{ "type": "point", "label": 1, "data": [30, 20] }], "conf_threshold": 0 }));
    assert!(click.len() <= 1 && click.iter().all(|s| s["label"] == "AUTOLABEL_OBJECT"));
    let rects = [("rectangle", 1, vec![4, 6, 30, 40]), ("rectangle", 0, vec![44, 58, 20, 30])];
    let marks: Vec<Value> = rects.iter().map(|(t, l, d)| json!({ "type": t, "label": l, "data": d })).collect();
    let like = ask(json!({ "marks": marks, "conf_threshold": 0.001 }));
    assert!(!like.is_empty());
    assert!(ask(json!({})).is_empty() && ask(json!({ "marks": [{ "type": "polygon", "data": [] }] })).is_empty());
}

#[test]
fn the_playground_looks_once_and_asks_often() {
    let service = start(fast(), |_| {});
    let info = service.get("/api/info").ok();
    assert_eq!((&info["concepts"], &info["objects"], &info["fetch"]), (&json!(true), &json!(true), &json!(false)));
    let taken = service.send("POST", "/api/images", &[("content-type", "image/png")], input()).ok();
    assert_eq!((&taken["width"], &taken["height"], &taken["cached"]), (&json!(83), &json!(59), &json!(false)));
    assert!(taken["timings"]["encode_image"].as_f64().unwrap() > 0.0);
    let again = service.post("/api/images", &json!({ "image_url": data_uri() })).ok();
    assert_eq!((&again["image_id"], &again["cached"]), (&taken["image_id"], &json!(true)));
    let at = format!("/api/images/{}", taken["image_id"].as_str().unwrap());
    assert_eq!(service.get(&at).ok()["width"], 83);
    let shown = service.get(&format!("{at}/picture"));
    assert_eq!((shown.status, shown.header("content-type")), (200, "image/png"));
    let source = Picture::open(fixture("tiny-a/input.png")).unwrap();
    assert_eq!(Picture::decode(&shown.body).unwrap().pixels(), source.pixels());
    let ask = |body: Value| service.post(&format!("{at}/segment"), &body);

    let picture = Picture::open(fixture("tiny-a/input.png")).unwrap();
    let (model, options) = (fast(), SegmentOptions::default());
    let mut session = model.session();
    let image = session.encode(&picture.view()).unwrap();
    let first = session.segment(&image, &[Prompt::point(30.0, 20.0)], &options).unwrap();
    let out = ask(json!({ "prompts": [{ "points": [{ "x": 30, "y": 20 }] }] })).ok();
    let found = &out["instances"][0];
    assert_eq!(found["rle"], rle::encode_pairs(&first.instances[0].mask));
    assert_eq!((&found["area"], &found["prompt"]), (&first.instances[0].area().into(), &json!(0)));
    assert_eq!(out["prompts"][0]["concept"], false);
    assert!(out["timings"]["segment"].as_f64().unwrap() > 0.0 && out["timings"].get("encode_image").is_none());

    // The second round goes on from the first one's logits.
    let points = [(30.0, 20.0, true), (50.0, 5.0, false)].map(|(x, y, positive)| sam3::Point { x, y, positive });
    let mask = Some(sam3::MaskPrompt::Logits(first.logits(0).unwrap().clone()));
    let second = sam3::Object { points: points.to_vec(), bbox: None, mask };
    let second = session.segment(&image, &[second.into()], &options).unwrap();
    let refined = ask(json!({ "prompts": [{
        "points": [{ "x": 30, "y": 20 }, { "x": 50, "y": 5, "label": 0 }], "mask_id": found["mask_id"],
    }] }));
    assert_eq!(refined.ok()["instances"][0]["rle"], rle::encode_pairs(&second.instances[0].mask));

    let many = ask(json!({
        "prompts": [{ "text": "red circle" }, { "box": [5, 6, 40, 50] }, { "exemplars": [{ "box": [4, 6, 30, 40] }] }],
        "threshold": 0, "max_masks": 200,
    }))
    .ok();
    let kinds: Vec<bool> =
        many["prompts"].as_array().unwrap().iter().map(|p| p["concept"].as_bool().unwrap()).collect();
    assert_eq!(kinds, [true, false, true]);
    for i in many["instances"].as_array().unwrap() {
        assert_eq!(i["mask_id"].is_null(), i["prompt"] != 1);
    }
    let kept = ask(json!({ "prompts": [{ "text": "red circle" }], "threshold": 0, "max_masks": 1, "keep": true })).ok();
    assert!(kept["instances"][0]["mask_id"].is_string());
    assert_eq!(
        ask(json!({ "prompts": [{ "points": [{ "x": 1, "y": 1 }] }], "multimask": true })).ok()["instances"]
            .as_array()
            .unwrap()
            .len(),
        3
    );

    for wrong in [
        json!({}),
        json!({ "prompts": [{}] }),
        json!({ "prompts": [] }),
        json!({ "prompts": [{ "text": "x", "box": [1, 1, 5, 5] }] }),
        json!({ "prompts": [{ "box": [1, 1, 5] }] }),
        json!({ "prompts": [{ "box": [5, 1, 1, 5] }] }),
        json!({ "prompts": [{ "points": [{ "x": 1000, "y": 1 }] }] }),
        json!({ "prompts": [{ "mask_id": "0" }] }),
        json!({ "prompts": [{ "text": "x" }], "threshold": 2 }),
    ] {
        ask(wrong).fails(422);
    }
    service.get("/api/images/0").fails(404);
    service.post("/api/images/0/segment", &json!({ "prompts": [{ "text": "x" }] })).fails(404);
    assert_eq!(service.send("POST", "/api/images", &[], "nonsense").fails(422), "image_load_error");
    assert_eq!(service.figure("sam3_pictures_looks_total"), 1);
}
