//! `sam3 bench`: what it reports adds up, repeats, and can be compared.

use serde_json::Value;

use crate::harness::{Desk, Run, fixture, run};

/// `sam3 bench PICTURE --model MODEL WORDS`, on two threads unless the words say how many.
fn bench(desk: &Desk, words: &str) -> Run {
    let mut command = desk.command();
    command.arg("bench").arg(&desk.picture).arg("--model").arg(&desk.model);
    if !words.contains("--threads") {
        command.args(["--threads", "2"]);
    }
    run(command.args(words.split_whitespace()))
}

fn report(desk: &Desk, words: &str) -> Value {
    serde_json::from_str(&bench(desk, &format!("{words} --format json")).ok().out).unwrap()
}

fn path<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["paths"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap()
}

fn stages(path: &Value) -> Vec<&str> {
    path["stages"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect()
}

#[test]
fn a_report_adds_up() {
    let desk = Desk::new("tiny-a");
    let report = report(&desk, "--runs 4 --warmup 1 --threshold 0 --text ball");
    assert_eq!((&report["schema"], &report["version"]), (&"sam3.bench".into(), &1.into()));
    assert_eq!(report["settings"]["image"]["width"], 83);
    assert_eq!(report["model"]["origin"], "random, seed 1");
    assert_eq!(report["model"]["random"], true);
    assert_eq!(report["model"]["precision"], serde_json::json!(["F32"]));
    // What `sha256sum tests/fixtures/tiny-a/model.safetensors` says.
    let sum = "499a21be352b7c2bc8283efb57c1740f4b5b10d3d8ee7faf8802006494e1c009";
    assert_eq!(report["model"]["files"][0]["sha256"], sum);
    assert!(report["model"]["device"].as_str().unwrap().contains("2 threads"));
    let notes = report["notes"].to_string();
    assert!(notes.contains("RANDOM WEIGHTS (random, seed 1)") && notes.contains("4 runs"), "{notes}");
    assert!(report["opening_ms"].as_f64().unwrap() > 0.0 && report["first"]["path"] == "picture");
    let concept = ["encode_text", "ground", "masks", "postprocess", "encode_output"];
    let picture = [["decode", "resize", "encode_image"].as_slice(), &concept].concat();
    let expected = [("picture", picture, 13), ("phrase", concept.to_vec(), 13)];
    let click = ("click", vec!["segment", "postprocess", "encode_output"], 1);
    for (name, names, instances) in expected.into_iter().chain([click]) {
        let path = path(&report, name);
        assert_eq!(stages(path), names, "{name}");
        assert_eq!(path["instances"], instances, "{name}");
        assert_eq!(path["repeatable"], true, "{name}");
        assert!(path["load"].is_null());
        let samples = |series: &Value| -> Vec<f64> {
            assert_eq!(series["n"], 4);
            let samples = series["samples"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
            assert_eq!(samples.len(), 4);
            samples
        };
        let total = samples(&path["total"]);
        let all: Vec<Vec<f64>> = path["stages"].as_array().unwrap().iter().map(|s| samples(&s["time"])).collect();
        for (i, total) in total.iter().enumerate() {
            let sum: f64 = all.iter().map(|s| s[i]).sum();
            assert!(sum <= *total, "{name}: stages take {sum} ms of {total}");
        }
        let rate = 4e3 / total.iter().sum::<f64>();
        assert!((path["per_second"].as_f64().unwrap() / rate - 1.0).abs() < 1e-6, "{name}");
    }
    // The phrase path answers the same question as the picture path, and clicks answer another.
    assert_eq!(path(&report, "picture")["checksum"], path(&report, "phrase")["checksum"]);
    assert_ne!(path(&report, "picture")["checksum"], path(&report, "click")["checksum"]);
    if cfg!(target_os = "linux") {
        let peak = |name: &str| report["memory"][name].as_u64().unwrap();
        assert!(peak("peak_after_opening") <= peak("peak_after_first") && peak("peak_after_first") <= peak("peak"));
        assert!(peak("peak") > 2_000_000, "more than the weights");
    }
}

#[test]
fn sums_tell_answers_apart_and_threads_do_not() {
    let desk = Desk::new("tiny-a");
    let sum = |words: &str| path(&report(&desk, words), "phrase")["checksum"].clone();
    let one = "--runs 1 --warmup 0 --threshold 0 --paths phrase --text cat";
    let first = sum(one);
    assert_eq!(first, sum(&format!("{one} --threads 1")));
    assert_ne!(first, sum(&one.replace("cat", "ball")));
    assert_ne!(first, sum(&one.replace("--threshold 0", "--threshold 0 --max-masks 5")));
}

#[test]
fn load_is_measured_over_all_sessions() {
    let desk = Desk::new("tiny-b");
    let report = report(&desk, "--runs 3 --warmup 0 --concurrency 3 --prompts 2 --threshold 0");
    for path in report["paths"].as_array().unwrap() {
        let load = &path["load"];
        assert_eq!((&load["sessions"], &load["latency"]["n"]), (&3.into(), &9.into()));
        assert!(load["per_second"].as_f64().unwrap() > 0.0);
        assert_eq!(path["repeatable"], true, "sessions agree");
    }
    // Two phrases find everything twice; two clicks are two objects.
    assert_eq!(path(&report, "phrase")["instances"], 14);
    assert_eq!(path(&report, "click")["instances"], 2);
}

#[test]
fn reports_are_compared() {
    let mut desk = Desk::new("tiny-a");
    let words = "--runs 6 --warmup 1";
    std::fs::write(desk.path("old.json"), bench(&desk, &format!("{words} --format json")).ok().out).unwrap();
    let same = report(&desk, &format!("{words} --compare old.json"));
    let comparison = &same["comparison"];
    assert_eq!(comparison["differences"], serde_json::json!([]));
    assert!(comparison["outputs"].as_array().unwrap().iter().all(|o| o["same"] == true));
    let rows = comparison["rows"].as_array().unwrap();
    let row = |name: &str| rows.iter().find(|r| r["name"] == name).unwrap();
    let (old, new) = (desk.json("old.json"), path(&same, "click"));
    assert_eq!(row("click")["old"], path(&old, "click")["total"]["median"]);
    assert_eq!(row("click")["new"], new["total"]["median"]);
    for name in ["opening", "first", "picture", "picture/encode_image", "phrase/ground", "click/segment"] {
        let ratio = row(name)["ratio"].as_f64().unwrap();
        if let Some(band) = row(name)["band"].as_array() {
            let [low, high] = [&band[0], &band[1]].map(|v| v.as_f64().unwrap());
            assert!(low <= ratio && ratio <= high, "{name}: {low} {ratio} {high}");
        }
    }

    // Another model, another phrase: said in every format that people read.
    desk.model = fixture("tiny-b");
    for format in ["table", "md"] {
        let other = bench(&desk, &format!("--runs 1 --text dog --compare old.json --format {format}")).ok().out;
        for word in ["NOT THE PROGRAM ALONE differs: weights", "phrase: cat then, dog now", "OUTPUTS DIFFER"] {
            assert!(other.contains(word), "{format}: no {word:?} in {other}");
        }
    }
}

#[test]
fn what_is_no_report_is_not_compared() {
    let desk = Desk::new("tiny-a");
    let good = bench(&desk, "--runs 1 --warmup 0 --paths click --format json").ok().out;
    let cases = [
        ("", "expected a report"),
        ("{}", "expected a report"),
        ("[1, 2]", "expected a report"),
        (&good.replace("\"version\": 1", "\"version\": 2"), "version 2"),
        (&good.replace("sam3.bench", "other"), "found other"),
        (&good.replace("\"samples\": [", "\"samples\": [-1.0,"), "0 ms or more"),
        (&good[..good.len() / 2], "expected a report"),
    ];
    for (text, word) in cases {
        std::fs::write(desk.path("old.json"), text).unwrap();
        bench(&desk, "--compare old.json").failed(2, &["old.json", word]);
    }
    bench(&desk, "--compare gone.json").failed(1, &["gone.json"]);
}

#[test]
fn the_formats_hold_the_same_numbers() {
    let desk = Desk::new("tiny-a");
    let csv = bench(&desk, "--runs 2 --format csv").ok().out;
    let mut lines = csv.lines();
    let head: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!((head[0], head[8], head.len()), ("unix_time", "name", 24));
    let names: Vec<String> = lines
        .map(|line| {
            // The device is the one field with commas, so the one in quotes.
            let [before, device, after] = line.split('"').collect::<Vec<_>>()[..] else { panic!("{line}") };
            assert!(device.contains("2 threads"), "{line}");
            let fields = before.matches(',').count() + after.matches(',').count() + 1;
            assert_eq!(fields, head.len(), "{line}");
            after.split(',').nth(5).unwrap().to_owned()
        })
        .collect();
    assert_eq!(names[..4], ["opening", "first", "picture", "picture/decode"]);
    assert!(names.contains(&"click/segment".to_owned()));
    let table = bench(&desk, "--runs 2").ok().out;
    let markdown = bench(&desk, "--runs 2 --format md").ok().out;
    for word in ["opening", "first answer (picture)", "encode_image", "RANDOM WEIGHTS", "resident", "499a21be352b"] {
        assert!(table.contains(word) && markdown.contains(word), "no {word:?} in {table}{markdown}");
    }
    assert!(markdown.lines().any(|l| l.starts_with("|---|--:|")));
}

#[test]
fn without_a_picture_one_is_made_up() {
    let desk = Desk::new("tiny-b");
    let mut command = desk.command();
    command.args(["bench", "--runs", "1", "--warmup", "0", "--format", "json", "--model"]).arg(&desk.model);
    let report: Value = serde_json::from_str(&run(&mut command).ok().out).unwrap();
    let image = &report["settings"]["image"];
    assert_eq!((&image["name"], &image["width"], &image["height"]), (&"generated".into(), &1280.into(), &853.into()));
}

#[test]
fn wrong_measurements_are_refused() {
    let desk = Desk::new("tiny-a");
    for (words, expected) in [
        ("--runs 0", "--runs"),
        ("--runs 1000001", "at most 1000000"),
        ("--concurrency 0", "--concurrency"),
        ("--concurrency 257", "at most 256"),
        ("--prompts 2000", "at most 1024"),
        ("--paths text", "--paths"),
        ("--format yaml", "--format"),
        ("--point 1", "X,Y"),
        ("--point 83,2", "83×59"),
        ("--threshold 2", "--threshold"),
        ("--max-masks 0", "--max-masks"),
    ] {
        bench(&desk, words).failed(2, &[expected]);
    }
    let mut command = desk.command();
    run(command.arg("bench").arg("gone.png").arg("--model").arg(&desk.model)).failed(1, &["gone.png"]);
    #[cfg(not(feature = "demo-model"))]
    run(desk.command().arg("bench")).failed(2, &["no model", "--model"]);
}

#[test]
fn origins_are_told_and_must_be_text() {
    let mut desk = Desk::new("tiny-a");
    let info = |desk: &Desk| run(desk.command().args(["info", "--model"]).arg(&desk.model));
    assert!(info(&desk).ok().out.contains("random, seed 1: RANDOM"));
    let config = desk.own_model().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let mark = |origin: &str| std::fs::write(&config, text.replace("\"random, seed 1\"", origin)).unwrap();
    mark("\"trained on \\u001b[31m drawings\"");
    let out = info(&desk).ok().out;
    assert!(out.contains("trained on \\u{1b}[31m drawings") && !out.contains("RANDOM"), "{out}");
    assert_eq!(report(&desk, "--runs 1 --paths click")["model"]["random"], false);
    mark("7");
    let refused = info(&desk);
    assert!(refused.code == 1 && refused.err.contains("sam3_origin: expected a text, found 7"), "{refused:?}");
}
