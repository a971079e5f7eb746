//! Configurations: upstream's defaults, and every wrong value refused by its path.

use sam3::ErrorKind;
use sam3::weights::Config;
use serde_json::{Value, json};

use crate::write::*;

/// `config` with the value at a dotted path replaced, or removed.
fn edited(mut config: Value, path: &str, value: Option<Value>) -> String {
    let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
    let pointer: String = parent.split('.').filter(|p| !p.is_empty()).map(|p| format!("/{p}")).collect();
    let fields = config.pointer_mut(&pointer).and_then(Value::as_object_mut).unwrap();
    match value {
        Some(v) => fields.insert(key.to_owned(), v),
        None => fields.remove(key),
    };
    config.to_string()
}

#[test]
fn wrong_configurations_are_refused_by_path() {
    use ErrorKind::{Checkpoint, Unsupported};
    let vit = "detector_config.vision_config.backbone_config";
    let cases: Vec<(&str, String, Value, ErrorKind, &str)> = vec![
        ("zero", format!("{vit}.hidden_size"), json!(0), Checkpoint, "1..=65536, found 0"),
        ("negative", format!("{vit}.hidden_size"), json!(-8), Checkpoint, "found -8"),
        ("huge", format!("{vit}.hidden_size"), json!(u64::MAX), Checkpoint, "found 18446744073709551615"),
        ("float", format!("{vit}.hidden_size"), json!(8.0), Checkpoint, "an integer in 1..=65536, found 8.0"),
        ("text", format!("{vit}.hidden_size"), json!("8"), Checkpoint, "found \"8\""),
        ("null", format!("{vit}.hidden_size"), json!(null), Checkpoint, "found null"),
        ("odd head", format!("{vit}.hidden_size"), json!(12), Checkpoint, "multiple of 4 per head (2 heads)"),
        ("one wide head", format!("{vit}.hidden_size"), json!(1028), Checkpoint, "at most 256 per head (2 heads)"),
        ("heads", format!("{vit}.num_attention_heads"), json!(3), Checkpoint, "a divisor of hidden_size (8), found 3"),
        ("layers", format!("{vit}.num_hidden_layers"), json!(100_000), Checkpoint, "1..=256"),
        ("patch", format!("{vit}.image_size"), json!(9), Checkpoint, "a multiple of patch_size (2), found 9"),
        ("picture", format!("{vit}.image_size"), json!(1_000_000), Checkpoint, "1..=16384"),
        ("grid", format!("{vit}.image_size"), json!(16_384), Checkpoint, "at most 256 patches of 2"),
        ("rectangle", format!("{vit}.image_size"), json!([8, 16]), Unsupported, "equal height and width, found [8,16]"),
        ("cube", format!("{vit}.image_size"), json!([8, 8, 8]), Checkpoint, "an integer or [height, width]"),
        ("pretrain", format!("{vit}.pretrain_image_size"), json!(1), Checkpoint, "at least patch_size (2)"),
        ("window", format!("{vit}.window_size"), json!(1 << 30), Checkpoint, "1..=512"),
        ("global", format!("{vit}.global_attn_indexes"), json!([-1]), Checkpoint, "layer numbers, found -1"),
        ("globals", format!("{vit}.global_attn_indexes"), json!(vec![0; 999]), Checkpoint, "a list of 999"),
        ("channels", format!("{vit}.num_channels"), json!(4), Unsupported, "expected 3, found 4"),
        ("activation", format!("{vit}.hidden_act"), json!("silu"), Unsupported, "\"gelu\" or \"relu\", found \"silu\""),
        ("activation type", format!("{vit}.hidden_act"), json!(1), Checkpoint, "found 1"),
        ("eps", format!("{vit}.layer_norm_eps"), json!(0), Checkpoint, "found 0"),
        ("eps sign", format!("{vit}.layer_norm_eps"), json!(-1e-6), Checkpoint, "found -1e-6"),
        ("rope", format!("{vit}.rope_parameters.rope_type"), json!("yarn"), Unsupported, "\"axial\", found \"yarn\""),
        ("theta", format!("{vit}.rope_parameters.rope_theta"), json!(0.0), Checkpoint, "found 0.0"),
        ("backbone", format!("{vit}.model_type"), json!("hiera"), Unsupported, "\"sam3_vit_model\", found \"hiera\""),
        ("no object", vit.to_owned(), json!([]), Checkpoint, "an object, found []"),
        (
            "fpn",
            "detector_config.vision_config.fpn_hidden_size".into(),
            json!(12),
            Checkpoint,
            "a multiple of 8, found 12",
        ),
        ("scale", "detector_config.vision_config.scale_factors".into(), json!([4, 3]), Unsupported, "found [4,3]"),
        ("rising", "detector_config.vision_config.scale_factors".into(), json!([2, 4]), Unsupported, "falling"),
        (
            "levels",
            "detector_config.vision_config.scale_factors".into(),
            json!([]),
            Unsupported,
            "at least one of 4, 2, 1, 0.5",
        ),
        ("text act", "detector_config.text_config.hidden_act".into(), json!("quick_gelu"), Unsupported, "quick_gelu"),
        ("text act default", "detector_config.text_config.hidden_act".into(), json!(null), Checkpoint, "null"),
        ("vocabulary", "detector_config.text_config.vocab_size".into(), json!(1u64 << 33), Checkpoint, "1..=16777216"),
        (
            "width",
            "detector_config.detr_encoder_config.hidden_size".into(),
            json!(16),
            Checkpoint,
            "8, the fpn_hidden_size, found 16",
        ),
        ("roi", "detector_config.geometry_encoder_config.roi_size".into(), json!(65), Checkpoint, "1..=64"),
        (
            "stages",
            "detector_config.mask_decoder_config.num_upsampling_stages".into(),
            json!(1),
            Checkpoint,
            "at least 2",
        ),
        ("queries", "detector_config.detr_decoder_config.num_queries".into(), json!(0), Checkpoint, "found 0"),
        ("detector", "detector_config.model_type".into(), json!("sam2"), Unsupported, "\"sam3\", found \"sam2\""),
        ("points", "tracker_config.prompt_encoder_config.num_point_embeddings".into(), json!(3), Checkpoint, "4..=64"),
        (
            "prompt size",
            "tracker_config.prompt_encoder_config.image_size".into(),
            json!(16),
            Checkpoint,
            "8 as in the backbone",
        ),
        (
            "mask channels",
            "tracker_config.prompt_encoder_config.mask_input_channels".into(),
            json!(6),
            Checkpoint,
            "a multiple of 4",
        ),
        (
            "rate",
            "tracker_config.mask_decoder_config.attention_downsample_rate".into(),
            json!(8),
            Checkpoint,
            "a multiple of 2 heads",
        ),
        (
            "stability",
            "tracker_config.mask_decoder_config.dynamic_multimask_stability_thresh".into(),
            json!(2),
            Checkpoint,
            "found 2",
        ),
        (
            "flag",
            "tracker_config.mask_decoder_config.dynamic_multimask_via_stability".into(),
            json!(1),
            Checkpoint,
            "true or false",
        ),
        (
            "other width",
            "tracker_config.vision_config.backbone_config.hidden_size".into(),
            json!(16),
            Checkpoint,
            "8 as in detector_config, found 16",
        ),
        ("other picture", "tracker_config.image_size".into(), json!(16), Checkpoint, "8 as in the backbone, found 16"),
        ("model", "model_type".into(), json!("sam2_video"), Unsupported, "found \"sam2_video\""),
        ("model type", "model_type".into(), json!(3), Checkpoint, "found 3"),
    ];
    for (what, path, value, kind, words) in cases {
        let error = Config::from_json(&edited(tiny(), &path, Some(value))).expect_err(what);
        expect(error, kind, &[&path, words]);
    }
    let level =
        Config::from_json(&edited(detector_only(), "vision_config.scale_factors", Some(json!([1])))).unwrap_err();
    expect(level, Unsupported, &["vision_config.scale_factors", "at least 2 levels, found [1]"]);
    let level =
        Config::from_json(&edited(tracker_only(), "vision_config.scale_factors", Some(json!([4, 1])))).unwrap_err();
    expect(level, Unsupported, &["vision_config.scale_factors", "4, 2, 1 first, found [4,1]"]);
    let e = Config::from_json(&edited(tiny(), "model_type", None)).unwrap_err();
    expect(e, Checkpoint, &["model_type", "\"sam3_video\"", "found nothing"]);
    // Without tracker_config it is the published one, which is of another size than this detector.
    let e = Config::from_json(&edited(tiny(), "tracker_config", None)).unwrap_err();
    expect(
        e,
        Checkpoint,
        &["tracker_config.vision_config.backbone_config.image_size", "8 as in detector_config, found 1008"],
    );

    for (text, words) in [
        ("", "expected JSON"),
        ("[1]", "expected a JSON object, found [1]"),
        ("{\"model_type\": \"sam3\", \"x\": NaN}", "expected JSON"),
        ("{\"model_type\": \"sam3\", \"x\": 1e999}", "out of range"),
        (&format!("{{\"x\": {}", "[".repeat(100_000)), "recursion limit"),
        (&format!("{{\"x\": \"{}\"}}", "x".repeat(1 << 20)), "at most 1048576 bytes"),
    ] {
        expect(Config::from_json(text).unwrap_err(), Checkpoint, &[words]);
    }
    expect(
        sam3::weights::Checkpoint::from_memory("{", vec![]).unwrap_err(),
        Checkpoint,
        &["config.json", "expected JSON"],
    );
}

#[test]
fn defaults_are_upstreams() {
    let c = Config::from_json(r#"{"model_type": "sam3_video"}"#).unwrap();
    let v = &c.vision;
    assert_eq!((v.image_size, v.patch_size, v.grid(), v.pretrain_grid, v.window_size), (1008, 14, 72, 24, 24));
    assert_eq!((v.hidden_size, v.intermediate_size, v.layers, v.heads), (1024, 4736, 32, 16));
    assert_eq!((&v.global_layers[..], &v.scale_factors[..]), (&[7, 15, 23, 31][..], &[4.0, 2.0, 1.0, 0.5][..]));
    assert_eq!((v.rope_theta, v.layer_norm_eps), (10_000.0, 1e-6));
    let d = c.detector.unwrap();
    let t = &d.text;
    assert_eq!((t.hidden_size, t.intermediate_size, t.layers, t.heads, t.context), (1024, 4096, 24, 16, 32));
    assert_eq!((d.geometry.transformer.layers, d.geometry.roi_size, d.queries), (3, 7, 200));
    assert_eq!((d.encoder.layers, d.decoder.layers, d.decoder.intermediate_size), (6, 6, 2048));
    let t = c.tracker.unwrap();
    assert_eq!((t.mlp_dim, t.layers, t.heads, t.attention_downsample_rate), (2048, 2, 8, 2));
    assert_eq!((t.dynamic_multimask, t.stability_delta, t.stability_thresh), (true, 0.05, 0.98));

    // A text_config that is there has CLIP's defaults, whose activation is another.
    let e = Config::from_json(r#"{"model_type": "sam3", "text_config": {}}"#).unwrap_err();
    expect(e, ErrorKind::Unsupported, &["text_config.hidden_act", "quick_gelu"]);
    let c = Config::from_json(r#"{"model_type": "sam3", "text_config": {"hidden_act": "gelu"}}"#).unwrap();
    assert_eq!((c.detector.unwrap().text.context, c.tracker), (77, None));

    // Both spellings of the rotary base, sides as pairs, and layers that a shallow model lacks.
    for (fields, theta) in [
        (json!({"rope_theta": 500.0}), 500.0),
        (json!({"rope_theta": 500.0, "rope_parameters": null}), 500.0),
        (json!({"rope_parameters": {"rope_theta": 7}}), 7.0),
        (json!({"image_size": [1008, 1008], "num_hidden_layers": 8}), 10_000.0),
    ] {
        let shallow = fields.get("num_hidden_layers").is_some();
        let text = json!({"model_type": "sam3_tracker", "vision_config": {"backbone_config": fields}}).to_string();
        let c = Config::from_json(&text).unwrap();
        assert_eq!((c.vision.rope_theta, c.vision.image_size, c.detector), (theta, 1008, None));
        assert_eq!(c.vision.global_layers.len(), if shallow { 1 } else { 4 });
    }
}
