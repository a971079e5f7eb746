//! Random and mutated input, and the memory that hostile input may take.

use proptest::prelude::*;
use sam3::ErrorKind;
use sam3::weights::{Checkpoint, Config, manifest};
use serde_json::json;

use crate::write::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), length in 0u64..400) {
        let mut framed = length.to_le_bytes().to_vec();
        framed.extend(&bytes);
        let config = r#"{"model_type": "sam3"}"#;
        for input in [bytes.clone(), framed] {
            let error = Checkpoint::from_memory(config, input).unwrap_err();
            prop_assert_eq!(error.kind(), ErrorKind::Checkpoint);
        }
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(Config::from_json(&text).is_err());
    }

    #[test]
    fn mutations_open_or_are_refused(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let config = tracker_only().to_string();
        let mut bytes = serialize(&tensors(&tracker_only(), "BF16"));
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for (at, byte) in edits {
            let at = at.index(header);
            bytes[at] = byte;
        }
        if let Err(error) = Checkpoint::from_memory(&config, bytes) {
            prop_assert_eq!(error.kind(), ErrorKind::Checkpoint);
            prop_assert!(error.to_string().len() < 4000);
        }
    }

    #[test]
    fn mutated_configurations_open_or_are_refused(edits in proptest::collection::vec((any::<prop::sample::Index>(), 0x20u8..0x7f), 1..4)) {
        let mut text = tiny().to_string().into_bytes();
        for (at, byte) in edits {
            let at = at.index(text.len());
            text[at] = byte;
        }
        let text = String::from_utf8(text).unwrap();
        if let Ok(config) = Config::from_json(&text) {
            // Whatever passes has shapes that can be multiplied.
            for (name, shape) in manifest::expected(&config) {
                let bytes = shape.iter().try_fold(4usize, |n, &d| n.checked_mul(d));
                prop_assert!(bytes.is_some_and(|b| b > 0), "{} {:?}", name, shape);
            }
        }
    }
}

/// Input that is small and asks for much.
#[test]
fn hostile_sizes_cost_no_more_than_they_bring() {
    // As many tensors as the longest header holds.
    let mut header = String::from("{");
    for i in 0.. {
        let entry = format!("\"{i:x}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}},");
        if header.len() + entry.len() > 4 << 20 {
            break;
        }
        header += &entry;
    }
    header.pop();
    header.push('}');
    refused(file(&header, &[]), &["do not fit"]);
    // One tensor of as many axes.
    let axes = vec!["1"; 2_000_000].join(",");
    let header = format!("{{\"a\":{{\"dtype\":\"U8\",\"shape\":[{axes}],\"data_offsets\":[0,1]}}}}");
    refused(file(&header, &[0]), &["do not fit"]);
    // The largest of every dimension.
    let mut config = tiny();
    for (path, most) in [
        ("/detector_config/vision_config/backbone_config/num_hidden_layers", 256),
        ("/tracker_config/vision_config/backbone_config/num_hidden_layers", 256),
        ("/detector_config/vision_config/backbone_config/intermediate_size", 65_536),
        ("/tracker_config/vision_config/backbone_config/intermediate_size", 65_536),
        ("/detector_config/text_config/num_hidden_layers", 256),
        ("/detector_config/text_config/vocab_size", 1 << 24),
        ("/detector_config/geometry_encoder_config/num_layers", 256),
        ("/detector_config/detr_encoder_config/num_layers", 256),
        ("/detector_config/detr_decoder_config/num_layers", 256),
        ("/detector_config/detr_decoder_config/num_queries", 65_536),
        ("/tracker_config/mask_decoder_config/num_multimask_outputs", 64),
    ] {
        *config.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = json!(most);
    }
    config["tracker_config"]["mask_decoder_config"]["num_hidden_layers"] = json!(64);
    let config = config.to_string();
    let names = manifest::expected(&Config::from_json(&config).unwrap()).len();
    assert!((20_000..100_000).contains(&names), "{names}");
    let error = Checkpoint::from_memory(&config, serialize(&tensors(&tiny(), "F32"))).unwrap_err();
    expect(error, ErrorKind::Checkpoint, &["do not fit", "; …"]);
}

/// All of the damage again in a process that cannot have more than 512 MiB of addresses, its own code included.
#[test]
#[cfg(target_os = "linux")]
fn damage_fits_in_little_memory() {
    let test = std::env::current_exe().unwrap();
    let limited = |filter: &str| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "ulimit -v 524288 && exec \"$0\" \"$@\""]).arg(&test);
        shell.args(["--test-threads=1", filter]).output().unwrap()
    };
    for filter in ["damage::", "fuzz::mut", "fuzz::random", "fuzz::hostile", "config::"] {
        let out = limited(filter);
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{filter}: {text}\n{}", String::from_utf8_lossy(&out.stderr));
        assert!(!text.contains(" 0 passed"), "{filter} names no test: {text}");
    }
}
