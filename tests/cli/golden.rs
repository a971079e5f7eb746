//! Prompts spelled on the command line against what upstream answered to them.

use crate::harness::{Desk, Tensors, distance, fixture, tensors};

/// Relative L2 of final outputs.
const BOUND: f64 = 1e-3;
const CONCEPT: [&str; 5] = ["pred_boxes", "pred_logits", "pred_masks", "presence_logits", "semantic_seg"];
const OBJECT: [&str; 3] = ["iou_scores", "object_score_logits", "pred_masks"];
const FIXTURES: [(&str, &str, &str); 2] = [
    ("tiny-a", "red circle", "a small blue box on the left, 2 lines"),
    ("tiny-b", "green stripe", "the YELLOW sun's reflection"),
];

/// Numbers as the command line takes them, `,-` behind those whose label is 0.
fn spelled(golden: &Tensors, values: &str, labels: Option<&str>, width: usize) -> Vec<String> {
    let Some((_, numbers)) = golden.get(values) else { return Vec::new() };
    let labels = labels.and_then(|l| golden.get(l)).map(|l| &l.1);
    let word = |(i, row): (usize, &[f32])| {
        let row: Vec<String> = row.iter().map(f32::to_string).collect();
        let sign = if labels.is_some_and(|l| l[i] == 0.0) { ",-" } else { "" };
        row.join(",") + sign
    };
    numbers.chunks_exact(width).enumerate().map(word).collect()
}

fn words<'a>(option: &'a str, values: &'a [String]) -> impl Iterator<Item = &'a str> {
    values.iter().flat_map(move |v| [option, v.as_str()])
}

#[track_caller]
fn same(what: &str, found: &(Vec<usize>, Vec<f32>), expected: &[f32], shape: &[usize]) {
    assert_eq!(found.0, shape, "{what}");
    let error = distance(&found.1, expected);
    assert!(error <= BOUND, "{what}: relative L2 {error:.2e} exceeds {BOUND:.0e}");
}

#[test]
fn concepts() {
    for (name, short, long) in FIXTURES {
        let golden = tensors(&fixture(name).join("golden.safetensors"));
        let cases = [
            ("text", Some(short)),
            ("text2", Some(long)),
            ("exemplar", None),
            ("exemplars", None),
            ("text_exemplar", Some(short)),
        ];
        for (case, text) in cases {
            let desk = Desk::new(name);
            let labels = format!("{case}/labels");
            let boxes = spelled(&golden, &format!("{case}/boxes_px"), Some(&labels), 4);
            let threshold = golden[&format!("{case}/threshold")].1[0].to_string();
            let mut line: Vec<&str> = text.into_iter().flat_map(|t| ["--text", t]).collect();
            line.extend(words("--exemplar", &boxes));
            line.extend(["--threshold", &threshold, "--tensors", "raw.safetensors", "--json", "answer.json"]);
            desk.segment(&line).ok();
            let raw = desk.tensors("raw.safetensors");
            assert_eq!(raw.keys().collect::<Vec<_>>(), CONCEPT, "{name} {case}");
            let queries = golden[&format!("{case}/pred_logits")].1.len();
            let side = golden[&format!("{case}/pred_masks")].0[1];
            for tensor in CONCEPT {
                let shape: &[usize] = match tensor {
                    "pred_logits" => &[1, queries],
                    "pred_boxes" => &[1, queries, 4],
                    "presence_logits" => &[1, 1],
                    "pred_masks" => &[1, queries, side, side],
                    _ => &[1, 1, side, side],
                };
                let what = format!("{case}/{tensor}");
                same(&format!("{name} {what}"), &raw[tensor], &golden[&what].1, shape);
            }
            // The threshold keeps what upstream kept, the best first.
            let mut scores = golden[&format!("{case}/post/scores")].1.clone();
            scores.sort_by(|a, b| b.total_cmp(a));
            let answer = desk.json("answer.json");
            let found: Vec<f32> =
                answer["instances"].as_array().unwrap().iter().map(|i| i["score"].as_f64().unwrap() as f32).collect();
            assert!(distance(&found, &scores) <= BOUND, "{name} {case}: {found:?}, expected {scores:?}");
        }
    }
}

/// The words for the golden object `case`.
fn object_words(golden: &Tensors, case: &str) -> Vec<String> {
    let labels = format!("{case}/labels");
    let points = spelled(golden, &format!("{case}/points_px"), Some(&labels), 2);
    let boxes = spelled(golden, &format!("{case}/boxes_px"), None, 4);
    words("--point", &points).chain(words("--box", &boxes)).map(str::to_owned).collect()
}

fn check_object(name: &str, case: &str, mode: &str, raw: &Tensors, golden: &Tensors) {
    assert_eq!(raw.keys().collect::<Vec<_>>(), OBJECT, "{name} {case}");
    let ious = &golden[&format!("{case}/{mode}/iou_scores")].1;
    for tensor in OBJECT {
        let what = format!("{case}/{mode}/{tensor}");
        let Some((shape, expected)) = golden.get(&what) else { continue };
        let shape: &[usize] = match tensor {
            "iou_scores" => &[1, 1, ious.len()],
            "object_score_logits" => &[1, 1, 1],
            _ => &[1, 1, ious.len(), shape[2], shape[3]],
        };
        same(&format!("{name} {what}"), &raw[tensor], expected, shape);
    }
}

#[test]
fn objects() {
    for (name, _, _) in FIXTURES {
        let golden = tensors(&fixture(name).join("golden.safetensors"));
        for case in ["point", "points", "box", "box_points", "mask", "mask_point"] {
            let desk = Desk::new(name);
            let mut words = object_words(&golden, case);
            if case.starts_with("mask") {
                let (shape, mask) = &golden["mask/mask_px"];
                let pixels: Vec<u8> = mask.iter().map(|&v| if v != 0.0 { 255 } else { 0 }).collect();
                desk.grey("mask.png", &pixels, shape[1], shape[0]);
                words.extend(["--mask".into(), "mask.png".into()]);
            }
            let words: Vec<&str> = words.iter().map(String::as_str).chain(["--tensors", "raw.safetensors"]).collect();
            desk.segment(&words).ok();
            check_object(name, case, "single", &desk.tensors("raw.safetensors"), &golden);
            desk.segment(&[&words[..], &["--multimask"]].concat()).ok();
            check_object(name, case, "multi", &desk.tensors("raw.safetensors"), &golden);
        }
    }
}

#[test]
fn a_second_round_refines_the_best_mask_of_the_first() {
    for (name, _, _) in FIXTURES {
        let golden = tensors(&fixture(name).join("golden.safetensors"));
        let desk = Desk::new(name);
        let first = object_words(&golden, "point");
        let first: Vec<&str> = first.iter().map(String::as_str).collect();
        desk.segment(&[&first[..], &["--multimask", "--tensors", "first.safetensors"]].concat()).ok();
        let second = object_words(&golden, "logits");
        let second: Vec<&str> = second.iter().map(String::as_str).collect();
        let rest = ["--mask", "first.safetensors", "--tensors", "second.safetensors"];
        desk.segment(&[&second[..], &rest].concat()).ok();
        check_object(name, "logits", "single", &desk.tensors("second.safetensors"), &golden);
    }
}

#[test]
fn several_objects_are_numbered_in_the_order_of_the_line() {
    for (name, _, _) in FIXTURES {
        let golden = tensors(&fixture(name).join("golden.safetensors"));
        let desk = Desk::new(name);
        let points = spelled(&golden, "multi_objects/points_px", Some("multi_objects/labels"), 2);
        let mut line: Vec<&str> = Vec::new();
        for object in points.chunks(2) {
            line.extend(words("--point", object));
            line.push("--object");
        }
        line.pop();
        for (mode, more) in [("single", &[][..]), ("multi", &["--multimask"][..])] {
            desk.segment(&[&line[..], &["--tensors", "raw.safetensors"], more].concat()).ok();
            let raw = desk.tensors("raw.safetensors");
            let names: Vec<String> = (0..3).flat_map(|i| OBJECT.map(|n| format!("{i}.{n}"))).collect();
            assert_eq!(raw.keys().collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
            for (tensor, i) in OBJECT.into_iter().flat_map(|t| (0..3).map(move |i| (t, i))) {
                let expected = &golden[&format!("multi_objects/{mode}/{tensor}")].1;
                let part = &expected[expected.len() / 3 * i..][..expected.len() / 3];
                let found = &raw[&format!("{i}.{tensor}")];
                same(&format!("{name} {mode} {i}.{tensor}"), found, part, &found.0);
            }
        }
        // Where --object stands is where one object ends: the same clicks as one object are another question.
        let flat: Vec<&str> = words("--point", &points).collect();
        desk.segment(&[&flat[..], &["--tensors", "raw.safetensors"]].concat()).ok();
        let one = desk.tensors("raw.safetensors");
        assert_eq!(one.keys().collect::<Vec<_>>(), OBJECT);
        let apart = &golden["multi_objects/single/object_score_logits"].1[0];
        assert!((one["object_score_logits"].1[0] - apart).abs() > 1e-4);
    }
}

#[test]
fn an_exemplar_belongs_to_the_text_before_it() {
    let (name, short, long) = FIXTURES[0];
    let golden = tensors(&fixture(name).join("golden.safetensors"));
    let boxes = spelled(&golden, "text_exemplar/boxes_px", Some("text_exemplar/labels"), 4);
    let desk = Desk::new(name);
    let exemplars: Vec<&str> = words("--exemplar", &boxes).collect();
    let (short, long) = (["--text", short], ["--text", long]);
    let tail = ["--tensors", "raw.safetensors"];
    // The prefix of the phrase that has the exemplars, for each order.
    let orders: [(Vec<&str>, usize); 3] = [
        ([&short[..], &exemplars, &long].concat(), 0),
        ([&long[..], &short, &exemplars].concat(), 1),
        ([&exemplars[..], &short, &long].concat(), 0),
    ];
    for (line, with) in orders {
        desk.segment(&[&line[..], &tail].concat()).ok();
        let raw = desk.tensors("raw.safetensors");
        for (index, case) in [(with, "text_exemplar"), (1 - with, "text2")] {
            for tensor in ["pred_logits", "pred_boxes", "presence_logits"] {
                let found = &raw[&format!("{index}.{tensor}")];
                same(&format!("{line:?} {index}.{tensor}"), found, &golden[&format!("{case}/{tensor}")].1, &found.0);
            }
        }
    }
    // Concepts come first, then objects, however the line mixes them.
    let point = object_words(&golden, "point");
    let point: Vec<&str> = point.iter().map(String::as_str).collect();
    desk.segment(&[&point[..], &short, &tail].concat()).ok();
    let raw = desk.tensors("raw.safetensors");
    assert!(raw.contains_key("0.pred_logits") && raw.contains_key("1.iou_scores") && raw.len() == 8);
}
