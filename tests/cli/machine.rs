//! Devices, threads, variables, and `sam3 info`.

use crate::harness::{Desk, distance, fixture, run};

#[test]
fn threads_do_not_change_the_answer() {
    for name in ["tiny-a", "tiny-b"] {
        let desk = Desk::new(name);
        let mut documents = Vec::new();
        for threads in ["1", "2", "3"] {
            let mut command = desk.command();
            command.arg("segment").arg(&desk.picture).arg("--model").arg(&desk.model).args(["--threads", threads]);
            command.args([
                "--text",
                "red circle",
                "--exemplar",
                "4,6,30,40",
                "--point",
                "20,30",
                "--threshold",
                "0.02",
            ]);
            command.args(["--tensors", "t.safetensors", "--json", "-"]);
            let document: serde_json::Value = serde_json::from_str(&run(&mut command).ok().out).unwrap();
            documents.push((document["instances"].clone(), desk.tensors("t.safetensors")));
        }
        assert!(documents[0].0.as_array().unwrap().len() > 3);
        assert!(documents.iter().all(|d| *d == documents[0]), "{name}");
    }
}

#[test]
fn devices_and_instruction_sets_agree() {
    let desk = Desk::new("tiny-a");
    let ask = |device: &str, isa: Option<&str>| {
        let words = ["--text", "red circle", "--point", "20,30", "--tensors", "t.safetensors", "--device", device];
        let mut command = desk.segment_command(&words);
        run(command.envs(isa.map(|i| ("SAM3_ISA", i)))).ok();
        desk.tensors("t.safetensors")
    };
    let cpu = ask("cpu", None);
    assert_eq!(ask("auto", None).keys().collect::<Vec<_>>(), cpu.keys().collect::<Vec<_>>());
    for other in [ask("reference", None), ask("cpu", Some("scalar"))] {
        for (name, (shape, values)) in &cpu {
            assert_eq!(&other[name].0, shape);
            let error = distance(&other[name].1, values);
            assert!(error < 1e-3, "{name}: {error:.2e}");
        }
    }
}

#[test]
fn an_instruction_set_that_is_not_there_is_an_error() {
    let desk = Desk::new("tiny-a");
    for isa in ["mmx", ""] {
        let wrong = run(desk.segment_command(&["--point", "20,30"]).env("SAM3_ISA", isa));
        if isa.is_empty() && wrong.code == 0 {
            continue;
        }
        wrong.failed(2, &["SAM3_ISA", "scalar", isa]);
    }
    run(desk.command().arg("info").env("SAM3_ISA", "mmx")).failed(2, &["SAM3_ISA", "mmx", "scalar"]);
    let info = run(desk.command().arg("info").env("SAM3_ISA", "scalar")).ok().out;
    assert!(info.contains("scalar chosen"), "{info}");
}

#[test]
fn the_model_may_come_from_the_environment() {
    let desk = Desk::new("tiny-a");
    let mut command = desk.command();
    command.arg("segment").arg(&desk.picture).args(["--point", "20,30"]).env("SAM3_MODEL", &desk.model);
    run(&mut command).ok();
    // The option wins.
    let (a, b) = (fixture("tiny-a"), fixture("tiny-b"));
    let info = run(desk.command().arg("info").arg("--model").arg(&b).env("SAM3_MODEL", &a)).ok().out;
    assert!(info.contains("tiny-b") && !info.contains("tiny-a"), "{info}");
    let info = run(desk.command().arg("info").env("SAM3_MODEL", &a)).ok().out;
    assert!(info.contains("tiny-a"), "{info}");
    run(desk.command().arg("info").env("SAM3_MODEL", desk.path("gone"))).failed_after("sam3 ", 1, &["gone"]);
}

impl crate::harness::Run {
    /// Failed after telling something on stdout that is true all the same.
    #[track_caller]
    fn failed_after(mut self, out: &str, code: i32, words: &[&str]) {
        assert!(self.out.starts_with(out), "{}", self.out);
        self.out.clear();
        self.failed(code, words);
    }
}

#[test]
fn a_missing_gpu_is_told() {
    let desk = Desk::new("tiny-a");
    // No machine has a hundred of them.
    let run = desk.line("--point 20,30 --device cuda:99");
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(run.err.contains("cuda:99"), "{}", run.err);
}

#[test]
fn too_many_threads_are_refused_at_once() {
    let desk = Desk::new("tiny-a");
    let mut command = desk.command();
    command.arg("segment").arg(&desk.picture).arg("--model").arg(&desk.model);
    run(command.args(["--point", "20,30", "--threads", "100000"])).failed(2, &["threads", "1024", "100000"]);
}

#[test]
fn info_tells_the_machine_and_the_checkpoint() {
    let desk = Desk::new("tiny-a");
    let machine = run(desk.command().arg("info")).ok().out;
    for word in ["cores", "kernels", "scalar", "devices", "cpu", "reference"] {
        assert!(machine.contains(word), "no {word} in {machine}");
    }
    #[cfg(not(feature = "demo-model"))]
    assert!(machine.contains("--model") && machine.contains("SAM3_MODEL"), "{machine}");
    let model = run(desk.command().args(["info", "--threads", "2", "--model"]).arg(&desk.model)).ok().out;
    for word in [
        "Sam3VideoModel, as published",
        "F32",
        "112×112",
        "patches of 14",
        "4 layers of 48",
        "windows of 4",
        "13 queries",
        "32 tokens of 700",
        "tokenizer.json",
        "up to 3 masks of 32×32",
        "2 threads",
    ] {
        assert!(model.contains(word), "no {word} in {model}");
    }
    let saved = run(desk.command().args(["info", "--device", "reference", "--model"]).arg(fixture("tiny-b"))).ok().out;
    assert!(saved.contains("as saved by transformers 5") && saved.contains("BF16") && saved.contains("reference"));
    // The file itself names the model as well as its folder does.
    let file = run(desk.command().args(["info", "--model"]).arg(desk.model.join("model.safetensors"))).ok().out;
    assert!(file.contains("13 queries"), "{file}");
}

#[cfg(feature = "demo-model")]
#[test]
fn without_a_checkpoint_the_demo_model_answers_and_says_so() {
    let desk = Desk::new("tiny-a");
    let info = run(desk.command().arg("info")).ok().out;
    assert!(info.contains("demo (embedded)") && info.contains("photographs"), "{info}");
    let mut command = desk.command();
    let answer = run(command.arg("segment").arg(&desk.picture).args(["--text", "circle", "--json", "-"]));
    assert!(answer.code == 0 && answer.err.contains("demo model"), "{answer:?}");
    let json: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(json["model"]["name"], "demo (embedded)");
    assert!(json["model"]["origin"].as_str().unwrap().contains("photographs"), "{json}");
    // A checkpoint that is named answers, and an empty name is not taken for none.
    let answer = run(desk.segment_command(&["--text", "circle", "--json", "-"]).env("SAM3_MODEL", "")).ok();
    assert!(answer.out.contains("tiny-a"), "{}", answer.out);
}
