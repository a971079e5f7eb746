//! Tiny models, and checkpoints rewritten in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sam3::image::Picture;
use sam3::{Device, Error, ErrorKind, Model, ModelOptions, Prompt, SegmentOptions, Segmentation};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn open(name: &str) -> Model {
    Model::open(fixture(name), &cpu()).unwrap()
}

pub fn cpu() -> ModelOptions {
    ModelOptions::on(Device::Cpu).threads(2)
}

pub fn picture(name: &str) -> Picture {
    Picture::open(fixture(name).join("input.png")).unwrap()
}

/// Everything, raw tensors included.
pub fn everything() -> SegmentOptions {
    let mut options = SegmentOptions::default();
    (options.threshold, options.raw, options.semantic) = (0.0, true, true);
    options
}

/// Whether two answers are equal bit for bit.
#[track_caller]
pub fn assert_same(a: &Segmentation, b: &Segmentation) {
    assert_eq!((a.width, a.height), (b.width, b.height));
    assert_eq!(a.instances, b.instances);
    assert_eq!(a.prompts.len(), b.prompts.len());
    for (a, b) in a.prompts.iter().zip(&b.prompts) {
        assert_eq!((a.presence, &a.semantic), (b.presence, &b.semantic));
        assert_eq!(a.raw, b.raw);
    }
}

/// The error of what must fail. Answers have no `Debug`, so `unwrap_err` will not do.
#[track_caller]
pub fn fails<T>(result: sam3::Result<T>, kind: ErrorKind, words: &[&str]) -> Error {
    let Err(e) = result else { panic!("expected {kind:?}, found success") };
    let text = e.to_string();
    assert_eq!(e.kind(), kind, "{text}");
    words.iter().for_each(|w| assert!(text.contains(w), "no {w:?} in: {text}"));
    e
}

/// A checkpoint's parts, to be changed.
#[derive(Clone)]
pub struct Parts {
    pub config: String,
    pub tokenizer: Vec<u8>,
    pub tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Parts {
    pub fn of(name: &str) -> Self {
        let read = |file: &str| std::fs::read(fixture(name).join(file)).unwrap();
        let bytes = read("model.safetensors");
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let part = |(n, t): (&str, TensorView<'_>)| (n.to_string(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()));
        Self {
            config: String::from_utf8(read("config.json")).unwrap(),
            tokenizer: read("tokenizer.json"),
            tensors: file.iter().map(part).collect(),
        }
    }

    pub fn weights(&self) -> Vec<u8> {
        let views = self
            .tensors
            .iter()
            .map(|(n, (dtype, shape, data))| (n, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        safetensors::serialize(views, None).unwrap()
    }

    pub fn open(&self, options: &ModelOptions) -> sam3::Result<Model> {
        Model::from_memory(&self.config, self.weights(), Some(&self.tokenizer), options)
    }

    /// One of the model's parts under its own configuration, with names as `rename` spells them, or left out.
    pub fn bare(&self, part: &str, model_type: &str, rename: impl Fn(&str) -> Option<String>) -> Self {
        let config: serde_json::Value = serde_json::from_str(&self.config).unwrap();
        let mut config = config[part].clone();
        config["model_type"] = model_type.into();
        let tensors = self.tensors.iter().filter_map(|(n, t)| Some((rename(n)?, t.clone()))).collect();
        Self { config: config.to_string(), tensors, ..self.clone() }
    }

    /// Sets every element of an f32 tensor.
    pub fn fill(&mut self, name: &str, value: f32) {
        let (dtype, _, data) = self.tensors.get_mut(name).unwrap();
        assert_eq!(*dtype, Dtype::F32);
        data.as_chunks_mut::<4>().0.iter_mut().for_each(|b| *b = value.to_le_bytes());
    }
}

/// One question of each kind.
pub fn questions() -> [Prompt; 4] {
    use sam3::{Concept, ExemplarBox, Object, Point};
    let exemplars = vec![
        ExemplarBox { xyxy: [4.0, 6.0, 30.5, 40.0], positive: true },
        ExemplarBox { xyxy: [20.0, 30.0, 44.0, 58.0], positive: false },
    ];
    let points = vec![Point { x: 20.0, y: 30.0, positive: true }, Point { x: 40.5, y: 3.0, positive: false }];
    [
        Prompt::text("red circle"),
        Concept { text: None, exemplars }.into(),
        Object { points, bbox: Some([5.0, 6.0, 40.0, 50.0]), mask: None }.into(),
        Prompt::point(30.0, 20.0),
    ]
}
