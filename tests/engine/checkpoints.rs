//! Checkpoints of every kind through the engine: from memory, bare, in half precision, and with damaged numbers.

use half::f16;
use safetensors::Dtype;
use sam3::{Device, ErrorKind, Model, ModelOptions, Prompt};

use crate::harness::*;

#[test]
fn a_model_from_memory_answers_as_one_from_files() {
    for name in ["tiny-a", "tiny-b"] {
        let picture = picture(name);
        let ask = |model: &Model| model.session().run(&picture.view(), &questions(), &everything()).unwrap();
        let (opened, read) = (open(name), Parts::of(name).open(&cpu()).unwrap());
        assert_same(&ask(&opened), &ask(&read));
        assert_eq!(opened.info().checkpoint.layout, read.info().checkpoint.layout);
        // Without its tokenizer the standard vocabulary, cut to the size, stands in: objects do not change.
        let parts = Parts::of(name);
        let bare = Model::from_memory(&parts.config, parts.weights(), None, &cpu()).unwrap();
        let object = |m: &Model| m.session().run(&picture.view(), &questions()[3..], &everything()).unwrap();
        assert_same(&object(&bare), &object(&opened));
    }
}

/// Names as `Sam3Model.save_pretrained` writes them.
fn detector_name(name: &str) -> Option<String> {
    name.strip_prefix("detector_model.").map(str::to_owned)
}

/// Names as a bare `Sam3TrackerModel` has them.
fn tracker_name(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("tracker_neck.") {
        return Some(format!("vision_encoder.neck.{rest}"));
    }
    if name.starts_with("detector_model.vision_encoder.backbone.") {
        return name.strip_prefix("detector_model.").map(str::to_owned);
    }
    name.strip_prefix("tracker_model.").map(str::to_owned)
}

#[test]
fn bare_models_answer_their_kind_of_prompts_and_refuse_the_other() {
    let (parts, picture) = (Parts::of("tiny-a"), picture("tiny-a"));
    let whole = parts.open(&cpu()).unwrap();
    let ask = |m: &Model, i: usize| m.session().run(&picture.view(), &questions()[i..i + 1], &everything());
    let detector = parts.bare("detector_config", "sam3", detector_name).open(&cpu()).unwrap();
    let tracker = parts.bare("tracker_config", "sam3_tracker", tracker_name).open(&cpu()).unwrap();
    assert_eq!(detector.info().checkpoint.layout, "Sam3Model");
    assert_eq!(tracker.info().checkpoint.layout, "Sam3TrackerModel");
    assert!(tracker.info().tokenizer.is_none() && detector.info().tokenizer.is_some());
    for i in [0, 1] {
        assert_same(&ask(&detector, i).unwrap(), &ask(&whole, i).unwrap());
        fails(ask(&tracker, i), ErrorKind::Unsupported, &["no detector", "text and exemplars"]);
    }
    for i in [2, 3] {
        assert_same(&ask(&tracker, i).unwrap(), &ask(&whole, i).unwrap());
        fails(ask(&detector, i), ErrorKind::Unsupported, &["no tracker", "points, boxes and masks"]);
    }
    // Refused before the picture is looked at, on every device.
    let options = ModelOptions::on(Device::Reference);
    let mut session = parts.bare("tracker_config", "sam3_tracker", tracker_name).open(&options).unwrap().session();
    let image = session.encode(&picture.view()).unwrap();
    session.take_timings();
    fails(session.segment(&image, &[Prompt::text("cat")], &everything()), ErrorKind::Unsupported, &["no detector"]);
    assert_eq!(session.take_timings().iter().count(), 0);
}

#[test]
fn half_precision_weights_answer_closely() {
    let picture = picture("tiny-a");
    let exact = Parts::of("tiny-a");
    let mut half = exact.clone();
    for (dtype, _, data) in half.tensors.values_mut().filter(|t| t.0 == Dtype::F32) {
        let values = data.as_chunks::<4>().0.iter().map(|b| f16::from_f32(f32::from_le_bytes(*b)));
        (*dtype, *data) = (Dtype::F16, values.flat_map(f16::to_le_bytes).collect());
    }
    let ask = |p: &Parts| p.open(&cpu()).unwrap().session().run(&picture.view(), &questions(), &everything()).unwrap();
    let (a, b) = (ask(&exact), ask(&half));
    for (a, b) in a.prompts.iter().zip(&b.prompts) {
        for (a, b) in a.raw.iter().zip(&b.raw) {
            assert_eq!((a.name, &a.shape), (b.name, &b.shape));
            let error: f64 = a.values.iter().zip(&b.values).map(|(x, y)| f64::from(x - y).powi(2)).sum();
            let norm: f64 = a.values.iter().map(|x| f64::from(*x).powi(2)).sum();
            // Rounding each weight by 2⁻¹¹ moves the outputs of a dozen layers by a few thousandths.
            assert!(error <= 0.02f64.powi(2) * norm, "{}: {:.2e}", a.name, (error / norm).sqrt());
            assert_ne!(a.values, b.values, "{}: f16 was not read", a.name);
        }
    }
}

/// Asks a model with damaged numbers everything. It may answer, or say that the weights are damaged; nothing else.
fn survive(parts: &Parts, name: &str, options: &ModelOptions) -> bool {
    let picture = picture("tiny-a");
    let mut session = match parts.open(options) {
        Ok(model) => model.session(),
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Checkpoint, "{name}: {e}");
            return true;
        }
    };
    let image = session.encode(&picture.view()).unwrap();
    let mut told = false;
    for question in questions() {
        match session.segment(&image, &[question], &everything()) {
            Ok(answer) => {
                let finite = |v: &[f32]| v.iter().all(|v| v.is_finite());
                assert!(answer.instances.iter().all(|i| i.score.is_finite() && finite(&i.bbox)), "{name}");
                assert!(answer.prompts.iter().all(|p| p.presence.is_finite()), "{name}");
                assert!(answer.prompts.iter().flat_map(|p| &p.raw).all(|t| finite(&t.values)), "{name}");
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Checkpoint, "{name}: {e}");
                assert!(e.to_string().contains("damaged"), "{name}: {e}");
                told = true;
            }
        }
    }
    told
}

#[test]
fn weights_that_are_not_numbers_are_told_wherever_they_stand() {
    let good = Parts::of("tiny-a");
    let names: Vec<&String> = good.tensors.keys().collect();
    let mut told = 0;
    // A sample of all parts; the stride shares no factor with the blocks' sizes.
    for (i, name) in names.iter().enumerate().step_by(7) {
        let mut parts = good.clone();
        let value = [f32::NAN, f32::INFINITY, f32::MAX, -f32::MAX][i / 7 % 4];
        parts.fill(name, value);
        told += usize::from(survive(&parts, name, &cpu()));
    }
    assert!(told > 30, "only {told} of {} were told", names.len() / 7);
}

#[test]
fn boxes_and_embeddings_that_are_not_numbers_stop_no_device() {
    // What the decoder's boxes, their sines and the pooled exemplars are made of.
    let names = [
        "detector_model.detr_decoder.box_head.layer3.bias",
        "detector_model.detr_decoder.reference_points.weight",
        "detector_model.vision_encoder.neck.fpn_layers.2.proj2.bias",
        "tracker_model.prompt_encoder.shared_embedding.positional_embedding",
        "tracker_model.mask_decoder.iou_prediction_head.proj_out.bias",
    ];
    for options in [cpu(), ModelOptions::on(Device::Reference)] {
        for name in names {
            for value in [f32::NAN, f32::INFINITY, f32::MAX] {
                let mut parts = Parts::of("tiny-a");
                parts.fill(name, value);
                let told = survive(&parts, name, &options);
                assert!(told || value == f32::MAX || value == f32::INFINITY, "{name} of {value}: not told");
            }
        }
    }
}
