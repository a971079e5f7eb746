//! Damaged, truncated and hostile files: each is refused by an error that names the culprit.

use std::path::Path;

use sam3::ErrorKind;
use sam3::weights::Checkpoint;
use serde_json::{Value, json};

use crate::write::*;

#[test]
fn damaged_headers_are_refused() {
    let all = tensors(&tiny(), "F32");
    let good = serialize(&all);
    let length = u64::from_le_bytes(good[..8].try_into().unwrap());
    let with_length = |n: u64| [&n.to_le_bytes(), &good[8..]].concat();

    refused(vec![], &["found 0 bytes"]);
    refused(good[..7].to_vec(), &["found 7 bytes"]);
    refused(good[..8].to_vec(), &["header of at most 0 bytes"]);
    refused(good[..100].to_vec(), &["header of at most 92 bytes"]);
    refused(good[..good.len() - 1].to_vec(), &["expected data within"]);
    refused([&good[..], &[0]].concat(), &["bytes of tensors behind the header"]);
    refused(with_length(0), &["damaged header"]);
    refused(with_length(length - 1), &["damaged header", "EOF"]);
    refused(with_length(length + 1), &[]);
    refused(with_length(u64::MAX), &["18446744073709551615"]);
    refused(with_length(1 << 40), &["1099511627776"]);
    refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".to_vec(), &["Git LFS pointer"]);
    refused(file("{}", &[]), &["do not fit", "found nothing", "; …"]);
    refused(file("[]", &[]), &["damaged header", "expected an object"]);
    refused(file("{} x", &[]), &["damaged header", "trailing"]);
    refused(file("{\"a\": {\"dtype\": \"F32\"}}", &[]), &["a: ", "missing field"]);
    refused([&4u64.to_le_bytes()[..], &[0xff; 4]].concat(), &["UTF-8"]);
    let deep = format!("{{\"a\": {}", "[".repeat(100_000));
    refused(file(&deep, &[]), &["damaged header"]);
    let long = format!("{{\"{}\": 1}}", "x".repeat(1_000_000));
    refused(file(&long, &[]), &["xxx…"]);
    // A real header of the longest length cannot be; one beyond it is not even parsed.
    refused(file(&" ".repeat((4 << 20) + 1), &[]), &["at most 4194304 bytes"]);
}

#[test]
fn damaged_entries_are_refused() {
    let all = tensors(&tiny(), "F32");
    let victim = "tracker_model.mask_decoder.iou_token.weight";
    let damage = |f: &dyn Fn(&mut Value)| {
        let mut h = header(&all);
        f(&mut h[victim]);
        file(&h.to_string(), &data(&all))
    };
    let begin = header(&all)[victim]["data_offsets"][0].as_u64().unwrap();
    refused(damage(&|e| e["shape"] = json!([1, 9])), &[victim, "expected 36 bytes for [1, 9] F32, found 32"]);
    refused(damage(&|e| e["shape"] = json!([u64::MAX, 2])), &[victim, "more than countable"]);
    refused(damage(&|e| e["shape"] = json!([1u64 << 62, 8])), &[victim, "more than countable"]);
    refused(damage(&|e| e["shape"] = json!([-1, 8])), &[victim, "invalid value"]);
    refused(damage(&|e| e["shape"] = json!([1.5, 8])), &[victim, "floating point"]);
    refused(damage(&|e| e["shape"] = json!("8")), &[victim, "invalid type"]);
    refused(damage(&|e| e["shape"] = json!(vec![1; 9999])), &[victim, "a shape of 9999 axes"]);
    refused(damage(&|e| e["dtype"] = json!("Q4_0")), &[victim, "unknown variant `Q4_0`"]);
    refused(damage(&|e| e["dtype"] = json!("F64")), &[victim, "expected 64 bytes"]);
    refused(damage(&|e| e["dtype"] = json!("I32")), &[victim, "expected F32, F16 or BF16, found I32"]);
    refused(damage(&|e| e["data_offsets"] = json!([begin + 32, begin])), &[victim, "found offsets"]);
    refused(damage(&|e| e["data_offsets"] = json!([begin, 1u64 << 50])), &[victim, "expected data within"]);
    refused(damage(&|e| e["data_offsets"] = json!([0, 32])), &["overlaps or leaves a gap"]);
    refused(damage(&|e| e["data_offsets"] = json!([begin - 4, begin + 28])), &[victim, "overlaps or leaves a gap"]);
    refused(damage(&|e| e["data_offsets"] = json!([begin])), &[victim, "invalid length"]);
    refused(damage(&|e| *e = Value::Null), &[victim, "invalid type: null"]);

    let twice = header(&all).to_string().replacen('{', &format!("{{\"{victim}\": {},", header(&all)[victim]), 1);
    refused(file(&twice, &data(&all)), &[victim, "found twice"]);
    let metadata = header(&all).to_string().replace("\"pt\"", "[1]");
    refused(file(&metadata, &data(&all)), &["__metadata__", "expected a string"]);
    // A tensor fewer in the header than in the data.
    let mut h = header(&all);
    h.as_object_mut().unwrap().remove(victim);
    refused(file(&h.to_string(), &data(&all)), &["overlaps or leaves a gap"]);
}

#[test]
fn tensors_that_do_not_fit_the_configuration_are_named() {
    let all = tensors(&tiny(), "F32");
    for (name, spell) in layouts().into_iter().take(2).map(|l| (l.0, l.2)) {
        let victim = "tracker_model.prompt_encoder.shared_embedding.positional_embedding";
        let mut some = all.clone();
        some.remove(victim).unwrap();
        refused(serialize(&rename(some, spell)), &[&spell(victim), "expected [2, 4], found nothing"]);
        let mut some = all.clone();
        some.get_mut(victim).unwrap().shape = vec![4, 2];
        refused(serialize(&rename(some.clone(), spell)), &[&spell(victim), "expected [2, 4], found [4, 2]"]);
        some.remove("detector_model.text_projection.bias").unwrap();
        let words = ["2 tensors of ", name, "detector_model.text_projection.bias: expected [8], found nothing", victim];
        refused(serialize(&rename(some, spell)), &words);
    }
    // An optional tensor of a wrong shape belongs to another model.
    let spare = "detector_model.text_encoder.text_projection.weight";
    let mut some = all.clone();
    some.get_mut(spare).unwrap().shape = vec![12];
    refused(serialize(&some), &[spare, "expected [3, 4], found [12]"]);
    // Half a model.
    refused(
        serialize(&tensors(&detector_only(), "F32")),
        &["tracker_model.mask_decoder.conv_s0.bias", "do not fit", "; …"],
    );
    refused(serialize(&tensors(&tracker_only(), "F32")), &["detector_model.detr_decoder"]);
}

#[test]
fn missing_and_hostile_files_are_refused() {
    use ErrorKind::{Checkpoint as Damaged, Io, Unsupported};
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let open = |path: &Path| Checkpoint::open(path).unwrap_err();
    expect(open(&at("nowhere")), Io, &["nowhere", "cannot be read"]);
    expect(open(dir.path()), Io, &["model.safetensors or model.safetensors.index.json", "neither"]);
    std::fs::write(at("sam3.pt"), b"PK").unwrap();
    expect(open(&at("sam3.pt")), Unsupported, &["sam3.pt", ".safetensors"]);

    sharded(dir.path());
    Checkpoint::open(dir.path()).unwrap();
    let index_path = at("model.safetensors.index.json");
    let index: Value = serde_json::from_slice(&std::fs::read(&index_path).unwrap()).unwrap();
    let victim = "tracker_neck.fpn_layers.0.proj1.bias";
    for hostile in [
        "../evil.safetensors",
        "/etc/x.safetensors",
        "..",
        "",
        "sub/b.safetensors",
        "a.bin",
        "c:\\b.safetensors",
        "..\\b.safetensors",
        "./b.safetensors",
        "b.safetensors/",
        "a\0.safetensors",
    ] {
        let mut edited = index.clone();
        edited["weight_map"][victim] = json!(hostile);
        std::fs::write(&index_path, edited.to_string()).unwrap();
        expect(open(dir.path()), Damaged, &["index.json", victim, "in the same directory"]);
    }
    let mut edited = index.clone();
    edited["weight_map"][victim] = json!("missing.safetensors");
    std::fs::write(&index_path, edited.to_string()).unwrap();
    expect(open(dir.path()), Io, &["missing.safetensors"]);
    let other = if index["weight_map"][victim] == "a.safetensors" { "b.safetensors" } else { "a.safetensors" };
    edited["weight_map"][victim] = json!(other);
    std::fs::write(&index_path, edited.to_string()).unwrap();
    expect(open(dir.path()), Damaged, &[other, victim, "named by the index"]);
    edited["weight_map"].as_object_mut().unwrap().remove(victim);
    std::fs::write(&index_path, edited.to_string()).unwrap();
    expect(open(dir.path()), Damaged, &[victim, "found nothing"]);
    for (text, words) in [
        ("{}", "missing field `weight_map`"),
        ("{\"weight_map\": []}", "expected an object"),
        ("{\"weight_map\": {\"a\": 1}}", "a: invalid type"),
        ("{\"weight_map\": {\"a\": \"a.safetensors\", \"a\": \"a.safetensors\"}}", "a: found twice"),
        ("\u{feff}", "damaged index"),
    ] {
        std::fs::write(&index_path, text).unwrap();
        expect(open(dir.path()), Damaged, &["index.json", words]);
    }
    let many: serde_json::Map<_, _> = (0..300).map(|i| (i.to_string(), json!(format!("{i}.safetensors")))).collect();
    std::fs::write(&index_path, json!({"weight_map": many}).to_string()).unwrap();
    expect(open(dir.path()), Damaged, &["at most 256 files"]);
    std::fs::write(&index_path, index.to_string()).unwrap();

    let shard = std::fs::read(at("a.safetensors")).unwrap();
    std::fs::write(at("a.safetensors"), &shard[..shard.len() / 2]).unwrap();
    expect(open(dir.path()), Damaged, &["a.safetensors", "expected a header of at most"]);
    std::fs::write(at("a.safetensors"), []).unwrap();
    expect(open(dir.path()), Damaged, &["a.safetensors", "found 0 bytes"]);
    std::fs::remove_file(at("a.safetensors")).unwrap();
    std::fs::create_dir(at("a.safetensors")).unwrap();
    expect(open(dir.path()), Io, &["a.safetensors", "found a directory"]);

    std::fs::write(at("config.json"), [b'{', 0xff]).unwrap();
    expect(open(dir.path()), Damaged, &["config.json", "UTF-8"]);
    std::fs::write(at("config.json"), vec![b' '; (1 << 20) + 1]).unwrap();
    expect(open(dir.path()), Damaged, &["config.json", "at most 1048576 bytes"]);
    std::fs::remove_file(at("config.json")).unwrap();
    expect(open(dir.path()), Io, &["config.json", "cannot be read"]);
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let config = tracker_only().to_string();
    let good = serialize(&tensors(&tracker_only(), "F16"));
    // Every length inside the first entries and around the header's end, and a sweep over the rest.
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let lengths = (0..300).chain(header - 5..header + 5).chain((300..good.len()).step_by(97)).chain([good.len() - 1]);
    for length in lengths {
        let error = Checkpoint::from_memory(&config, good[..length].to_vec()).unwrap_err();
        expect(error, ErrorKind::Checkpoint, &["model.safetensors"]);
    }
}
