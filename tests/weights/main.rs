//! Checkpoints written here from the manifest are opened again, whole and damaged.

mod config;
mod damage;
mod fuzz;
mod write;

use std::collections::BTreeMap;

use sam3::ErrorKind;
use sam3::weights::{Checkpoint, Dtype, manifest};

use write::*;

#[test]
fn every_layout_and_type_reads_back() {
    for (name, config, spell) in layouts() {
        for (dtype, ours) in [("F32", Dtype::F32), ("F16", Dtype::F16), ("BF16", Dtype::Bf16)] {
            let original = tensors(&config, dtype);
            let bytes = serialize(&rename(original.clone(), spell));
            let total = bytes.len() as u64;
            let checkpoint = Checkpoint::from_memory(&config.to_string(), bytes).unwrap();
            let table = manifest::expected(checkpoint.config());
            for (i, (canonical, shape)) in table.iter().enumerate() {
                let t = checkpoint.tensor(canonical).unwrap();
                assert_eq!((t.name(), t.shape(), t.dtype()), (canonical.as_str(), shape.as_slice(), ours));
                assert_eq!(t.bytes(), original[canonical].data, "{name} {canonical}");
                let want: Vec<f32> = (0..t.len()).map(|j| value(i, j)).collect();
                assert_eq!(t.to_f32(), want, "{name} {canonical}");
            }
            let s = checkpoint.summary();
            assert_eq!((s.layout, s.files, s.tensors, s.bytes), (name, 1, table.len(), total));
            assert_eq!(s.dtypes, BTreeMap::from([(dtype.to_owned(), s.parameters)]));
            assert!(s.used_parameters < s.parameters, "{s:?}");
            assert_eq!(checkpoint.directory(), None);
        }
    }
}

#[test]
fn a_detector_or_tracker_also_opens_alone_out_of_a_full_file() {
    for (config, spell) in [(detector_only(), layouts()[0].2), (tracker_only(), layouts()[0].2)] {
        let bytes = serialize(&rename(tensors(&tiny(), "F32"), spell));
        Checkpoint::from_memory(&config.to_string(), bytes).unwrap();
    }
}

#[test]
fn data_need_not_be_aligned() {
    let config = tiny().to_string();
    let all = tensors(&tiny(), "F32");
    let json = header(&all).to_string();
    for pad in 0..8 {
        // Spaces in the header move the data to every residue.
        let checkpoint = Checkpoint::from_memory(&config, file(&(json.clone() + &" ".repeat(pad)), &data(&all)));
        let t = checkpoint.unwrap().tensor("tracker_model.mask_decoder.mask_tokens.weight").unwrap();
        assert_eq!(t.to_f32(), bytemuck::pod_collect_to_vec::<u8, f32>(&all[t.name()].data));
    }
}

#[test]
fn unneeded_tensors_may_be_anything() {
    let mut all = tensors(&tiny(), "F32");
    let extra = |dtype, data: &[u8]| Tensor { dtype, shape: vec![2], data: data.to_vec() };
    all.insert("a.step".into(), extra("I64", &[0; 16]));
    all.insert("tracker_model.memory".into(), extra("F8_E4M3", &[0; 2]));
    all.insert("zzz".into(), Tensor { dtype: "BOOL", shape: vec![0, 3], data: vec![] });
    // Optional ones may be absent.
    let spare = "detector_model.vision_encoder.neck.fpn_layers.3.proj1.weight";
    all.remove(spare).unwrap();
    let checkpoint = Checkpoint::from_memory(&tiny().to_string(), serialize(&all)).unwrap();
    assert_eq!(checkpoint.summary().dtypes.keys().collect::<Vec<_>>(), ["BOOL", "F32", "F8_E4M3", "I64"]);
    expect(checkpoint.tensor(spare).unwrap_err(), ErrorKind::Checkpoint, &[spare, "found nothing"]);
    expect(checkpoint.tensor("a.step").unwrap_err(), ErrorKind::Internal, &["a.step"]);
}

#[test]
fn files_are_found_by_directory_file_and_index() {
    let dir = tempfile::tempdir().unwrap();
    let all = sharded(dir.path());
    let name = "detector_model.text_projection.weight";
    for path in [dir.path().to_path_buf(), dir.path().join("model.safetensors.index.json")] {
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.summary().files, 2);
        assert_eq!(checkpoint.tensor(name).unwrap().bytes(), all[name].data);
        assert_eq!(checkpoint.directory(), Some(dir.path()));
    }
    // A single file comes first, as upstream has it.
    std::fs::write(dir.path().join("model.safetensors"), serialize(&tensors(&tiny(), "BF16"))).unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("model.safetensors")] {
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.summary().files, 1);
        assert_eq!(checkpoint.tensor(name).unwrap().dtype(), Dtype::Bf16);
    }
    // Tensors outlive the checkpoint they came from.
    let t = Checkpoint::open(dir.path()).unwrap().tensor(name).unwrap();
    assert_eq!(t.bytes().len(), t.len() * 2);
}
