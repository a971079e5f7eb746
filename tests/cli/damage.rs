//! Files that are missing, cut, or not what they claim: exit code 1, the file named, nothing left behind.

use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use serde_json::Value;

use crate::harness::{Desk, Run, fixture};

/// Runs a job with every output on a desk whose input is damaged.
fn ask(desk: &Desk) -> Run {
    desk.line("--text cat --point 3,4 -o o.png --masks m --cutouts c --semantic s.png --json j --tensors t")
}

#[track_caller]
fn refused(desk: &Desk, words: &[&str]) {
    let before = desk.files();
    ask(desk).failed(1, words);
    assert_eq!(desk.files(), before, "a failed job leaves nothing");
}

#[test]
fn pictures() {
    let mut desk = Desk::new("tiny-a");
    let folder = fixture("images/files");
    desk.picture = desk.path("nowhere.png");
    refused(&desk, &["nowhere.png", "cannot open"]);
    desk.picture = folder.clone();
    refused(&desk, &["files"]);
    let mut cases: Vec<(String, Vec<u8>, &str)> = vec![
        ("empty.png".into(), vec![], "found 0 bytes"),
        ("text.png".into(), b"This is not a picture.".to_vec(), "expected JPEG, PNG"),
        ("zeros.jpg".into(), vec![0; 4096], "expected JPEG, PNG"),
        ("page.webp".into(), b"<!doctype html><html></html>".to_vec(), "expected JPEG, PNG"),
        ("svg.png".into(), b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(), "expected JPEG, PNG"),
        ("pointer.png".into(), b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "expected JPEG, PNG"),
    ];
    let whole = |name: &str| std::fs::read(folder.join(name)).unwrap();
    for (name, format) in [
        ("rgb.png", "PNG"),
        ("420.jpg", "JPEG"),
        ("lossy.webp", "WebP"),
        ("palette.gif", "GIF"),
        ("plain.tiff", "TIFF"),
    ] {
        let bytes = whole(name);
        cases.push((format!("half-{name}"), bytes[..bytes.len() / 2].to_vec(), format));
        cases.push((format!("start-{name}"), bytes[..16].to_vec(), format));
    }
    let mut huge = whole("rgb.png");
    // Width and height of a PNG stand at 16 and 20; the checksum of the header no longer fits either.
    huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    cases.push(("huge.png".into(), huge, "PNG"));
    let mut flipped = whole("rgb.png");
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    cases.push(("flipped.png".into(), flipped, "PNG"));
    let mut bmp = whole("rgb.bmp");
    bmp[18..26].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0x7f]);
    cases.push(("huge.bmp".into(), bmp, "BMP"));
    if cfg!(feature = "avif") {
        let bytes = whole("420-full.avif");
        cases.push(("half.avif".into(), bytes[..bytes.len() / 2].to_vec(), "AVIF"));
        cases.push(("start.avif".into(), bytes[..40].to_vec(), "AVIF"));
    }
    for (name, bytes, word) in cases {
        desk.picture = desk.path(&name);
        std::fs::write(&desk.picture, bytes).unwrap();
        refused(&desk, &[&name, word]);
    }
}

#[test]
fn mask_prompts() {
    let desk = Desk::new("tiny-a");
    let save = |name: &str, tensors: &[(&str, Vec<usize>, Dtype, Vec<u8>)]| {
        let views = tensors.iter().map(|(n, s, d, b)| (*n, TensorView::new(*d, s.clone(), b).unwrap()));
        std::fs::write(desk.path(name), serialize(views, None).unwrap()).unwrap();
    };
    let f32s = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let masks = |n: usize, side: usize| {
        ("pred_masks", vec![1, 1, n, side, side], Dtype::F32, f32s(&vec![1.0; n * side * side]))
    };
    let ious = |n: usize| ("iou_scores", vec![1, 1, n], Dtype::F32, f32s(&vec![0.5; n]));
    save("good.safetensors", &[masks(1, 32), ious(1)]);
    save("side.safetensors", &[masks(1, 40), ious(1)]);
    save("no-ious.safetensors", &[masks(1, 32)]);
    save("no-masks.safetensors", &[ious(1)]);
    save("count.safetensors", &[masks(3, 32), ious(2)]);
    save("none.safetensors", &[masks(0, 32), ious(0)]);
    save("point.safetensors", &[masks(1, 0), ious(1)]);
    save("oblong.safetensors", &[("pred_masks", vec![1, 1, 1, 2, 8], Dtype::F32, f32s(&[0.0; 16])), ious(1)]);
    save("flat.safetensors", &[("pred_masks", vec![32, 32], Dtype::F32, f32s(&[0.0; 1024])), ious(1)]);
    save("half.safetensors", &[("pred_masks", vec![1, 1, 1, 32, 32], Dtype::F16, vec![0; 2048]), ious(1)]);
    save("nan.safetensors", &[("pred_masks", vec![1, 1, 1, 32, 32], Dtype::F32, f32s(&[f32::NAN; 1024])), ious(1)]);
    save("prefixed.safetensors", &[("0.pred_masks", vec![1, 1, 1, 32, 32], Dtype::F32, f32s(&[0.0; 1024])), ious(1)]);
    desk.line("--mask good.safetensors").ok();
    let good = std::fs::read(desk.path("good.safetensors")).unwrap();
    std::fs::write(desk.path("cut.safetensors"), &good[..good.len() - 9]).unwrap();
    std::fs::write(desk.path("long.safetensors"), [u64::MAX.to_le_bytes(); 4].concat()).unwrap();
    std::fs::write(desk.path("empty.safetensors"), []).unwrap();
    std::fs::write(desk.path("cut.png"), &std::fs::read(&desk.picture).unwrap()[..99]).unwrap();
    std::fs::create_dir(desk.path("folder.safetensors")).unwrap();
    let file = std::fs::File::create(desk.path("large.safetensors")).unwrap();
    file.set_len(8 << 30).unwrap();
    let before = desk.files();
    for (name, code, word) in [
        ("gone.safetensors", 1, "cannot read"),
        ("gone.png", 1, "cannot open"),
        ("cut.png", 1, "PNG"),
        ("cut.safetensors", 1, "damage"),
        ("long.safetensors", 1, "damage"),
        ("empty.safetensors", 1, "damage"),
        ("folder.safetensors", 1, "cannot read"),
        ("large.safetensors", 1, "at most"),
        ("side.safetensors", 2, "32×32, found 40×40"),
        ("no-ious.safetensors", 2, "no tensor iou_scores"),
        ("no-masks.safetensors", 2, "no tensor pred_masks"),
        ("count.safetensors", 2, "with 2 iou_scores"),
        ("none.safetensors", 2, "with 0 iou_scores"),
        ("point.safetensors", 2, "[1, 1, 1, 0, 0]"),
        ("oblong.safetensors", 2, "[1, 1, 1, 2, 8]"),
        ("flat.safetensors", 2, "[32, 32]"),
        ("half.safetensors", 2, "F16"),
        ("nan.safetensors", 2, "finite"),
        ("prefixed.safetensors", 2, "no tensor pred_masks"),
    ] {
        let words: &[&str] = if name.starts_with("side") { &[word] } else { &[name, word] };
        desk.segment(&["--mask", name, "-o", "o.png", "--json", "j", "--masks", "m"]).failed(code, words);
    }
    assert_eq!(desk.files(), before);
}

#[test]
fn tokenizers() {
    let mut desk = Desk::new("tiny-a");
    let model = desk.own_model();
    let path = model.join("tokenizer.json");
    let good: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let edited = |f: &dyn Fn(&mut Value)| {
        let mut json = good.clone();
        f(&mut json);
        json.to_string().into_bytes()
    };
    let merges = |v: Value| edited(&|j| j["model"]["merges"] = v.clone());
    let text = good.to_string();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("cut", text.as_bytes()[..text.len() / 2].to_vec()),
        ("not UTF-8", [b"{\"model\": \"", &[0xff, 0xfe][..], b"\"}"].concat()),
        ("a pointer", b"version https://git-lfs.github.com/spec/v1\n".to_vec()),
        ("a list", b"[]".to_vec()),
        ("no model", b"{}".to_vec()),
        ("deep", [vec![b'['; 100_000], vec![b']'; 100_000]].concat()),
        ("another kind", edited(&|j| j["model"]["type"] = "WordPiece".into())),
        ("no vocabulary", edited(&|j| j["model"]["vocab"] = Value::Null)),
        ("an empty vocabulary", edited(&|j| j["model"]["vocab"] = serde_json::json!({}))),
        ("a negative id", edited(&|j| j["model"]["vocab"]["a</w>"] = (-1).into())),
        ("a large id", edited(&|j| j["model"]["vocab"]["a</w>"] = 4_000_000_000u32.into())),
        ("an id beyond the text encoder's", edited(&|j| j["model"]["vocab"]["a</w>"] = 700.into())),
        ("a merge of unknown parts", merges(serde_json::json!(["qq qq"]))),
        ("a merge of one part", merges(serde_json::json!(["a"]))),
        ("merges of numbers", merges(serde_json::json!([1, 2]))),
        ("no merges", merges(Value::Null)),
    ];
    for (what, bytes) in cases {
        std::fs::write(&path, bytes).unwrap();
        let run = desk.line("--text cat --json j");
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{what}: {}", run.err);
        assert!(run.err.contains("tokenizer.json"), "{what}: {}", run.err);
        assert!(!run.err.contains("panicked") && run.err.len() < 2000, "{what}: {}", run.err);
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::write(model.join("vocab.json"), "{}").unwrap();
    refused(&desk, &["merges.txt"]);
    std::fs::remove_file(model.join("vocab.json")).unwrap();
    // Without any, the standard vocabulary is cut to the model's size.
    desk.line("--text cat").ok();
}

#[test]
fn checkpoints() {
    let mut desk = Desk::new("tiny-a");
    let model = desk.own_model();
    let (weights, config) = (model.join("model.safetensors"), model.join("config.json"));
    let restore = |path: &Path| {
        std::fs::copy(fixture("tiny-a").join(path.file_name().unwrap()), path).unwrap();
    };
    let good = std::fs::read(&weights).unwrap();
    for (bytes, word) in [
        (vec![], "found 0 bytes"),
        (good[..4].to_vec(), "found 4 bytes"),
        (good[..good.len() / 2].to_vec(), "expected data within"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "Git LFS"),
        (b"PK\x03\x04 a pickle".to_vec(), "header"),
    ] {
        std::fs::write(&weights, bytes).unwrap();
        refused(&desk, &["model.safetensors", word]);
    }
    std::fs::remove_file(&weights).unwrap();
    refused(&desk, &["model.safetensors"]);
    restore(&weights);
    let good: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    let mut width = good.clone();
    width["detector_config"]["detr_decoder_config"]["num_queries"] = 14.into();
    let mut heads = good.clone();
    heads["detector_config"]["text_config"]["num_attention_heads"] = 0.into();
    let mut kind = good.clone();
    kind["model_type"] = "llama".into();
    for (text, word) in [
        ("".to_owned(), ""),
        ("{".to_owned(), ""),
        ("{}".to_owned(), "model_type"),
        (width.to_string(), "found [13, 32]"),
        (heads.to_string(), "num_attention_heads"),
        (kind.to_string(), "llama"),
    ] {
        std::fs::write(&config, text).unwrap();
        let run = ask(&desk);
        assert!(run.err.contains("config.json") || run.err.contains("model.safetensors"), "{}", run.err);
        run.failed(1, &[word]);
    }
    std::fs::remove_file(&config).unwrap();
    refused(&desk, &["config.json"]);
    restore(&config);
    desk.model = desk.path("elsewhere");
    refused(&desk, &["elsewhere"]);
    desk.model = desk.picture.clone();
    refused(&desk, &["input.png", ".safetensors"]);
    desk.model = desk.path("");
    refused(&desk, &["model.safetensors"]);
}
