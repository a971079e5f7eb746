//! Writes small checkpoints, and judges the errors of opening them.

use std::collections::BTreeMap;
use std::path::Path;

use sam3::weights::{Checkpoint, Config, manifest};
use sam3::{Error, ErrorKind};
use serde_json::{Value, json};

/// A full model of the smallest dimensions that every rule allows.
pub fn tiny() -> Value {
    let vision = json!({"model_type": "sam3_vision_model", "fpn_hidden_size": 8, "backbone_config": {
        "model_type": "sam3_vit_model", "hidden_size": 8, "intermediate_size": 10, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 8, "patch_size": 2, "pretrain_image_size": 4, "window_size": 2,
        "global_attn_indexes": [1], "rope_parameters": {"rope_theta": 10000.0, "rope_type": "axial"}}});
    let stack = json!({"hidden_size": 8, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 6});
    let mut decoder = stack.clone();
    decoder["num_queries"] = json!(3);
    let mut geometry = stack.clone();
    geometry["roi_size"] = json!(2);
    json!({
        "model_type": "sam3_video",
        "detector_config": {
            "model_type": "sam3",
            "vision_config": vision,
            "text_config": {"model_type": "clip_text_model", "vocab_size": 11, "hidden_size": 4,
                "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2,
                "max_position_embeddings": 5, "projection_dim": 3, "hidden_act": "gelu"},
            "geometry_encoder_config": geometry,
            "detr_encoder_config": stack,
            "detr_decoder_config": decoder,
            "mask_decoder_config": {"hidden_size": 8, "num_attention_heads": 2},
        },
        "tracker_config": {
            "model_type": "sam3_tracker_video",
            "vision_config": vision,
            "prompt_encoder_config": {"hidden_size": 8, "image_size": 8, "patch_size": 2, "mask_input_channels": 4},
            "mask_decoder_config": {"hidden_size": 8, "num_attention_heads": 2, "mlp_dim": 6,
                "iou_head_hidden_dim": 7, "num_multimask_outputs": 3},
        },
    })
}

pub fn detector_only() -> Value {
    tiny()["detector_config"].clone()
}

pub fn tracker_only() -> Value {
    tiny()["tracker_config"].clone()
}

#[derive(Clone)]
pub struct Tensor {
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

pub type Tensors = BTreeMap<String, Tensor>;

/// Numbers that differ between any two tensors and elements, exact in f16 and bf16.
pub fn value(tensor: usize, element: usize) -> f32 {
    ((tensor * 31 + element * 7) % 251) as f32 / 16.0 - 4.0
}

/// A complete checkpoint of `config`, by published names.
pub fn tensors(config: &Value, dtype: &'static str) -> Tensors {
    let config = Config::from_json(&config.to_string()).unwrap();
    let table = manifest::expected(&config).into_iter().enumerate();
    let encode = |v: f32| match dtype {
        "F16" => half::f16::from_f32(v).to_le_bytes().to_vec(),
        "BF16" => half::bf16::from_f32(v).to_le_bytes().to_vec(),
        _ => v.to_le_bytes().to_vec(),
    };
    table
        .map(|(i, (name, shape))| {
            let data = (0..shape.iter().product()).flat_map(|j| encode(value(i, j))).collect();
            (name, Tensor { dtype, shape, data })
        })
        .collect()
}

pub fn header(tensors: &Tensors) -> Value {
    let mut end = 0;
    let entries = tensors.iter().map(|(name, t)| {
        let begin = end;
        end += t.data.len();
        (name.clone(), json!({"dtype": t.dtype, "shape": t.shape, "data_offsets": [begin, end]}))
    });
    let mut map: serde_json::Map<_, _> = entries.collect();
    map.insert("__metadata__".into(), json!({"format": "pt"}));
    map.into()
}

pub fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

pub fn data(tensors: &Tensors) -> Vec<u8> {
    tensors.values().flat_map(|t| t.data.iter().copied()).collect()
}

pub fn serialize(tensors: &Tensors) -> Vec<u8> {
    file(&header(tensors).to_string(), &data(tensors))
}

pub fn rename(tensors: Tensors, f: impl Fn(&str) -> String) -> Tensors {
    tensors.into_iter().map(|(n, t)| (f(&n), t)).collect()
}

/// The configuration, and how files of this layout spell a published name.
pub type Spelling = (&'static str, Value, fn(&str) -> String);

pub fn layouts() -> Vec<Spelling> {
    let backbone = "detector_model.vision_encoder.backbone.";
    assert!(tensors(&tracker_only(), "F32").keys().any(|n| n.starts_with(backbone)));
    vec![
        ("Sam3VideoModel, as published", tiny(), |n| n.to_owned()),
        ("Sam3VideoModel, as saved by transformers 5", tiny(), |n| {
            if n.starts_with("tracker_model.") { format!("tracker_model.{n}") } else { n.to_owned() }
        }),
        ("Sam3Model", detector_only(), |n| n.replacen("detector_model.", "", 1)),
        ("Sam3TrackerModel, as saved by transformers 5", tracker_only(), |n| {
            if n.starts_with("tracker_model.") { n.to_owned() } else { format!("tracker_model.{n}") }
        }),
        ("Sam3TrackerModel", tracker_only(), |n| {
            n.replacen("detector_model.", "", 1).replacen("tracker_neck.", "vision_encoder.neck.", 1).replacen(
                "tracker_model.",
                "",
                1,
            )
        }),
    ]
}

/// A directory with the whole tiny model in two shards, for tests to damage.
pub fn sharded(dir: &Path) -> Tensors {
    let all = tensors(&tiny(), "F16");
    let (mut a, mut b, mut map) = (Tensors::new(), Tensors::new(), serde_json::Map::new());
    for (i, (name, t)) in all.iter().enumerate() {
        let (shard, file) = if i % 2 == 0 { (&mut a, "a.safetensors") } else { (&mut b, "b.safetensors") };
        shard.insert(name.clone(), t.clone());
        map.insert(name.clone(), file.into());
    }
    std::fs::write(dir.join("config.json"), tiny().to_string()).unwrap();
    std::fs::write(dir.join("a.safetensors"), serialize(&a)).unwrap();
    std::fs::write(dir.join("b.safetensors"), serialize(&b)).unwrap();
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    all
}

#[track_caller]
pub fn expect(error: Error, kind: ErrorKind, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    assert!(text.len() < 2000, "a message of {} bytes", text.len());
}

#[track_caller]
pub fn refused(bytes: Vec<u8>, words: &[&str]) {
    let error = Checkpoint::from_memory(&tiny().to_string(), bytes).unwrap_err();
    expect(error, ErrorKind::Checkpoint, &[&["model.safetensors"], words].concat());
}
