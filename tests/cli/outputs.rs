//! Every output, decoded and held against the others.

use sam3::image::Picture;
use sam3::instance::{Mask, rle};
use serde_json::Value;

use crate::harness::{Desk, distance, fixture, run};

/// The masks of a document, from its run lengths.
fn masks(document: &Value) -> Vec<Mask> {
    document["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| {
            let [h, w] = [0, 1].map(|k| i["segmentation"]["size"][k].as_u64().unwrap() as usize);
            rle::decode_coco(i["segmentation"]["counts"].as_str().unwrap(), w, h).unwrap()
        })
        .collect()
}

fn saved_mask(picture: &Picture) -> Mask {
    let red: Vec<u8> = picture.pixels().chunks_exact(3).map(|p| p[0]).collect();
    assert!(picture.pixels().chunks_exact(3).all(|p| p == [0; 3] || p == [255; 3]), "black and white");
    Mask::from_u8(picture.width(), picture.height(), &red).unwrap()
}

#[test]
fn all_outputs_tell_of_the_same_pixels() {
    let desk = Desk::new("tiny-a");
    let run = desk.segment(&[
        "--text",
        "red circle",
        "--text",
        "blue box",
        "--point",
        "20,30",
        "--object",
        "--box",
        "8,23,33,47",
        "--threshold",
        "0.1",
        "-o",
        "over.png",
        "--masks",
        "deep/masks",
        "--cutouts",
        "cut",
        "--semantic",
        "sem.png",
        "--json",
        "answer.json",
        "--tensors",
        "raw.safetensors",
    ]);
    let run = run.ok();
    let document = desk.json("answer.json");
    let instances = document["instances"].as_array().unwrap();
    let masks = masks(&document);
    let n = instances.len();
    assert!(n > 4, "{n} instances make a poor test");

    let mut files: Vec<String> = ["answer.json", "cut", "deep", "deep/masks", "over.png", "raw.safetensors"]
        .map(str::to_owned)
        .into_iter()
        .chain((0..n).flat_map(|i| [format!("cut/cutout_{i:03}.png"), format!("deep/masks/mask_{i:03}.png")]))
        .chain(["sem.0.png".into(), "sem.1.png".into()])
        .collect();
    files.sort();
    assert_eq!(desk.files(), files);

    let source = Picture::open(&desk.picture).unwrap();
    let (w, h) = (source.width(), source.height());
    assert_eq!(document["image"]["file"], desk.picture.to_str().unwrap());
    assert_eq!((&document["image"]["width"], &document["image"]["height"]), (&w.into(), &h.into()));
    for (i, (found, mask)) in instances.iter().zip(&masks).enumerate() {
        assert_eq!(found["id"], i);
        assert_eq!(found["area"], mask.area());
        assert_eq!((mask.width(), mask.height()), (w, h));
        assert_eq!(found["box"].as_array().unwrap().len(), 4);
        let png = Picture::open(desk.path(&format!("deep/masks/mask_{i:03}.png"))).unwrap();
        assert_eq!(saved_mask(&png), *mask, "instance {i}");
        check_cutout(&desk, i, mask, &source);
        if found["prompt"] == "object" {
            let tight = mask.bounding_box().unwrap().map(|v| Value::from(v as f32));
            assert_eq!(found["box"].as_array().unwrap(), &tight);
        }
    }
    let scores: Vec<f64> = instances.iter().map(|i| i["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert!(instances.iter().any(|i| i["prompt"] == "object 2"));
    let presence = document["presence"].as_object().unwrap();
    assert_eq!(presence.len(), 4);
    assert!(["red circle", "blue box", "object", "object 2"].iter().all(|l| presence[*l].is_number()));

    let over = Picture::open(desk.path("over.png")).unwrap();
    assert_eq!((over.width(), over.height()), (w, h));
    assert_ne!(over.pixels(), source.pixels(), "something is drawn");
    // People get one line per instance, and one per prompt.
    assert_eq!(run.out.lines().count(), n + 4);
    assert!(run.out.contains("red circle") && run.out.contains("presence"));
}

fn check_cutout(desk: &Desk, i: usize, mask: &Mask, source: &Picture) {
    let bytes = std::fs::read(desk.path(&format!("cut/cutout_{i:03}.png"))).unwrap();
    let cut = image::load_from_memory(&bytes).unwrap();
    assert_eq!(cut.color(), image::ColorType::Rgba8);
    let cut = cut.into_rgba8();
    assert_eq!((cut.width() as usize, cut.height() as usize), (mask.width(), mask.height()));
    for (at, (pixel, rgb)) in cut.pixels().zip(source.pixels().chunks_exact(3)).enumerate() {
        let inside = mask.get(at % mask.width(), at / mask.width());
        assert_eq!(pixel.0[3], if inside { 255 } else { 0 }, "instance {i}, pixel {at}");
        assert!(!inside || pixel.0[..3] == *rgb, "instance {i}, pixel {at}");
    }
}

#[test]
fn semantic_masks_equal_upstream_s() {
    for (name, text) in [("tiny-a", "red circle"), ("tiny-b", "green stripe")] {
        let golden = crate::harness::tensors(&fixture(name).join("golden.safetensors"));
        let desk = Desk::new(name);
        desk.segment(&["--text", text, "--semantic", "sem.png"]).ok();
        assert_eq!(desk.files(), ["sem.png"]);
        let (shape, values) = &golden["text/post/semantic"];
        let bytes: Vec<u8> = values.iter().map(|&v| if v != 0.0 { 255 } else { 0 }).collect();
        let expected = Mask::from_u8(shape[1], shape[0], &bytes).unwrap();
        let found = saved_mask(&Picture::open(desk.path("sem.png")).unwrap());
        assert!(found.iou(&expected) >= 0.999, "{name}: IoU {}", found.iou(&expected));
        // The threshold of pixels applies to it, too: none exceeds certainty.
        desk.segment(&["--text", text, "--semantic", "sem.png", "--mask-threshold", "1"]).ok();
        assert!(saved_mask(&Picture::open(desk.path("sem.png")).unwrap()).is_empty());
    }
}

#[test]
fn json_stands_alone_on_standard_output_in_its_order() {
    let desk = Desk::new("tiny-a");
    let line = ["--text", "zebra", "--text", "apple", "--threshold", "0.1", "--json", "-"];
    let out = desk.segment(&line).ok().out;
    assert_eq!(desk.files(), [""; 0]);
    let document: Value = serde_json::from_str(&out).unwrap();
    let keys = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&document).len(), 5);
    // In the text, since parsed objects need not keep the order.
    let in_order = |names: &[&str]| {
        let mut at = 0;
        for name in names {
            let found = out[at..].find(&format!("\"{name}\":"));
            at += found.unwrap_or_else(|| panic!("{name} does not follow in {out}"));
        }
    };
    in_order(&["image", "file", "width", "height", "instances", "presence", "zebra", "apple", "timings_ms", "total"]);
    in_order(&["instances", "id", "prompt", "score", "box", "area", "segmentation", "size", "counts", "presence"]);
    in_order(&["timings_ms", "decode", "load", "resize", "encode_image", "encode_text", "ground", "masks", "total"]);
    for (name, time) in document["timings_ms"].as_object().unwrap() {
        assert!((0.0..600_000.0).contains(&time.as_f64().unwrap()), "{name}: {time}");
    }
    assert_eq!(keys(&document["instances"][0]).len(), 6);
    // The same document goes to a file, times aside.
    desk.segment(&[&line[..7], &["answer.json"]].concat()).ok();
    let mut file = desk.json("answer.json");
    file["timings_ms"] = document["timings_ms"].clone();
    assert_eq!(file, document);
}

#[test]
fn overlays_are_written_in_the_format_of_their_ending() {
    let formats = [
        ("a.png", image::ImageFormat::Png),
        ("a.JPG", image::ImageFormat::Jpeg),
        ("a.jpeg", image::ImageFormat::Jpeg),
        ("a.webp", image::ImageFormat::WebP),
    ];
    let desk = Desk::new("tiny-b");
    for (name, format) in formats {
        desk.segment(&["--point", "20,30", "--overlay", name]).ok();
        let bytes = std::fs::read(desk.path(name)).unwrap();
        assert_eq!(image::guess_format(&bytes).unwrap(), format);
        let picture = Picture::decode(&bytes).unwrap();
        assert_eq!((picture.width(), picture.height()), (45, 99));
    }
    assert_eq!(desk.files(), ["a.JPG", "a.jpeg", "a.png", "a.webp"]);
}

#[test]
fn thresholds_and_limits_choose_instances() {
    let desk = Desk::new("tiny-a");
    let ask = |more: &str| {
        desk.line(&format!("--text cat --json a.json {more}")).ok();
        desk.json("a.json")["instances"].as_array().unwrap().clone()
    };
    let all = ask("--threshold 0");
    assert_eq!(all.len(), 13, "every query scores above 0");
    assert_eq!(ask("--threshold 1").len(), 0);
    assert_eq!(ask("--threshold 1 --mask-threshold 0").len(), 0);
    assert_eq!(ask("--threshold 0 --max-masks 4")[..], all[..4]);
    let middle = (all[5]["score"].as_f64().unwrap() + all[6]["score"].as_f64().unwrap()) / 2.0;
    assert_eq!(ask(&format!("--threshold {middle}"))[..], all[..6]);
    // Pixels: every one has a probability above 0, none above 1.
    assert!(ask("--threshold 0 --mask-threshold 0").iter().all(|i| i["area"] == 83 * 59));
    assert!(ask("--threshold 0 --mask-threshold 1").iter().all(|i| i["area"] == 0));
    let quarter = ask("--threshold 0 --mask-threshold 0.25");
    assert!(quarter.iter().zip(&all).all(|(q, a)| q["area"].as_u64() >= a["area"].as_u64()));
    assert!(quarter.iter().zip(&all).any(|(q, a)| q["area"].as_u64() > a["area"].as_u64()));
    let out = desk.line("--text cat --threshold 1").ok().out;
    assert!(out.starts_with("nothing found\n") && out.contains("presence"), "{out}");
}

#[test]
fn multimask_gives_three_masks_for_each_object() {
    let desk = Desk::new("tiny-a");
    desk.line("--point 20,30 --object --point 60,20 --multimask --json a.json --masks m").ok();
    let document = desk.json("a.json");
    let prompts =
        |label: &str| document["instances"].as_array().unwrap().iter().filter(|i| i["prompt"] == label).count();
    assert_eq!((prompts("object"), prompts("object 2")), (3, 3));
    assert_eq!(desk.files().iter().filter(|f| f.starts_with("m/")).count(), 6);
    desk.line("--point 20,30 --multimask --max-masks 2 --json a.json").ok();
    assert_eq!(desk.json("a.json")["instances"].as_array().unwrap().len(), 2);
}

#[test]
fn coordinates_are_of_the_upright_picture() {
    let mut desk = Desk::new("tiny-a");
    // Stored as 47×35 and turned by a quarter: upright it is 35×47.
    desk.picture = fixture("images/files/turned-6.jpg");
    let line = "--point 30,44 --box 2,3,34,46 -o over.png --masks m --json turned.json --tensors turned.safetensors";
    desk.line(line).ok();
    let turned = desk.json("turned.json");
    assert_eq!((&turned["image"]["width"], &turned["image"]["height"]), (&35.into(), &47.into()));
    for name in ["over.png", "m/mask_000.png"] {
        let picture = Picture::open(desk.path(name)).unwrap();
        assert_eq!((picture.width(), picture.height()), (35, 47), "{name}");
    }
    desk.line("--point 44,30").failed(2, &["44,30", "35×47"]);
    // The same pixels without the mark are the same question.
    let upright = Picture::open(&desk.picture).unwrap();
    let path = desk.path("upright.png");
    sam3::image::save(&upright.view(), &path).unwrap();
    desk.picture = path;
    desk.line("--point 30,44 --box 2,3,34,46 --json upright.json --tensors upright.safetensors").ok();
    assert_eq!(desk.json("upright.json")["instances"], turned["instances"]);
    assert_eq!(desk.tensors("upright.safetensors"), desk.tensors("turned.safetensors"));
}

#[test]
fn every_kind_of_picture_is_answered() {
    let mut desk = Desk::new("tiny-a");
    let mut names = vec!["420.jpg", "progressive.jpg", "cmyk.jpg", "grey16.png", "rgba.png", "palette.gif", "rgb.bmp"];
    names.extend(["lossy.webp", "animated.webp", "lzw.tiff"]);
    if cfg!(feature = "avif") {
        names.push("420-10bit.avif");
    }
    for name in names {
        desk.picture = fixture("images/files").join(name);
        let picture = Picture::open(&desk.picture).unwrap();
        desk.line("--point 5,5 --json a.json").ok();
        let found = &desk.json("a.json")["image"];
        assert_eq!(found["width"], picture.width(), "{name}");
        assert_eq!(found["height"], picture.height(), "{name}");
    }
}

#[test]
fn a_mask_picture_of_any_size_prompts() {
    let desk = Desk::new("tiny-a");
    // The same half, drawn at two sizes: the answers are close, not equal, as edges are resampled.
    for (name, w, h) in [("small.png", 83, 59), ("large.webp", 166, 118)] {
        let pixels: Vec<u8> = (0..w * h).map(|i| if i % w < w / 2 { 255 } else { 0 }).collect();
        desk.grey(name, &pixels, w, h);
    }
    desk.line("--mask small.png --tensors a.safetensors").ok();
    desk.line("--mask large.webp --tensors b.safetensors").ok();
    let (a, b) = (desk.tensors("a.safetensors"), desk.tensors("b.safetensors"));
    let near = distance(&a["pred_masks"].1, &b["pred_masks"].1);
    desk.line("--point 1,1 --tensors c.safetensors").ok();
    let far = distance(&a["pred_masks"].1, &desk.tensors("c.safetensors")["pred_masks"].1);
    assert!(near < 0.1 && near < far / 2.0, "{near} {far}");
}

#[test]
fn an_existing_output_is_replaced() {
    let desk = Desk::new("tiny-a");
    for name in ["a.png", "a.json", "a.safetensors"] {
        std::fs::write(desk.path(name), "old").unwrap();
    }
    desk.line("--point 20,30 -o a.png --json a.json --tensors a.safetensors").ok();
    assert_eq!(desk.files(), ["a.json", "a.png", "a.safetensors"]);
    Picture::open(desk.path("a.png")).unwrap();
    assert!(desk.json("a.json")["instances"].is_array() && desk.tensors("a.safetensors").len() == 3);
    // The picture itself may be the output, since it is read first.
    let mut command = desk.command();
    command.args(["segment", "a.png", "--point", "20,30", "-o", "a.png", "--model"]).arg(&desk.model);
    run(&mut command).ok();
}
