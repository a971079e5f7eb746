//! The demo model on a picture that its training never drew (`assets/demo/shapes.png`, flat colours): every kind of
//! prompt finds what a person would point at, and nothing answers for what is not there.
#![cfg(feature = "demo-model")]

use std::path::Path;

use sam3::image::Picture;
use sam3::instance::Instance;
use sam3::{Concept, ExemplarBox, ImageEmbedding, Model, ModelOptions, Object, Point, Prompt, SegmentOptions, Session};

/// What the picture shows: a name, its fill, and a box that holds it and nothing else of that colour.
///
/// The last two are small: 32 of the model's pixels across, where an edge is a fifteenth of the mask.
const SHAPES: [(&str, [u8; 3], [usize; 4]); 8] = [
    ("red circle", [0xe0, 0x32, 0x2b], [60, 50, 240, 230]),
    ("blue star", [0x2b, 0x55, 0xd9], [285, 40, 515, 257]),
    ("green square", [0x2e, 0x9e, 0x48], [550, 50, 750, 240]),
    ("yellow triangle", [0xf2, 0xc4, 0x17], [40, 325, 240, 510]),
    ("red heart", [0xe0, 0x32, 0x2b], [300, 325, 500, 525]),
    ("purple ring", [0x8a, 0x3e, 0xc2], [550, 320, 750, 520]),
    ("blue circle", [0x2b, 0x55, 0xd9], [205, 257, 300, 345]),
    ("orange cross", [0xf0, 0x7f, 0x1b], [525, 258, 610, 348]),
];

/// What masks have to reach: more for what is large.
fn bar(name: &str) -> f64 {
    if ["blue circle", "orange cross"].contains(&name) { 0.85 } else { 0.9 }
}

struct Scene {
    picture: Picture,
    session: Session,
    image: ImageEmbedding,
}

impl Scene {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo/shapes.png");
        let picture = Picture::open(path).unwrap();
        let mut session = Model::demo(&ModelOptions::default()).unwrap().session();
        let image = session.encode(&picture.view()).unwrap();
        Self { picture, session, image }
    }

    fn ask(&mut self, prompt: Prompt) -> Vec<Instance> {
        self.session.segment(&self.image, &[prompt], &SegmentOptions::default()).unwrap().instances
    }

    /// The pixels of shape `name`: those of its exact colour in its box. Soft edges belong to nobody.
    fn truth(&self, name: &str) -> Vec<bool> {
        let &(_, rgb, [x0, y0, x1, y1]) = SHAPES.iter().find(|(n, ..)| *n == name).unwrap();
        let width = self.picture.width();
        let inside = |i: usize| (x0..x1).contains(&(i % width)) && (y0..y1).contains(&(i / width));
        let pixels = self.picture.pixels().chunks_exact(3).enumerate();
        pixels.map(|(i, p)| inside(i) && p == rgb).collect()
    }

    fn iou(&self, found: &Instance, name: &str) -> f64 {
        let (found, truth) = (found.mask.to_u8(), self.truth(name));
        let both = found.iter().zip(&truth).filter(|(f, t)| **f != 0 && **t).count();
        let either = found.iter().zip(&truth).filter(|(f, t)| **f != 0 || **t).count();
        both as f64 / either as f64
    }

    /// Exactly the shapes `names` are found, in any order, each with the IoU of its [`bar`] less `slack` at least.
    #[track_caller]
    fn finds(&mut self, prompt: Prompt, names: &[&str], slack: f64) {
        let what = format!("{prompt:?}");
        let found = self.ask(prompt);
        let ious: Vec<Vec<f64>> = found.iter().map(|f| names.iter().map(|n| self.iou(f, n)).collect()).collect();
        let scores: Vec<f32> = found.iter().map(|f| f.score).collect();
        assert_eq!(found.len(), names.len(), "{what}: scores {scores:?}, IoU with {names:?}: {ious:.2?}");
        for (i, name) in names.iter().enumerate() {
            assert!(ious.iter().any(|row| row[i] >= bar(name) - slack), "{what}: {name} is missed: {ious:.2?}");
        }
    }
}

#[test]
fn phrases() {
    let mut scene = Scene::new();
    for (name, ..) in SHAPES {
        scene.finds(Prompt::text(name), &[name], 0.0);
    }
    scene.finds(Prompt::text("circle"), &["red circle", "blue circle"], 0.0);
    scene.finds(Prompt::text("anything blue"), &["blue star", "blue circle"], 0.0);
    scene.finds(Prompt::text("a star"), &["blue star"], 0.0);
}

#[test]
fn what_is_absent() {
    let mut scene = Scene::new();
    for phrase in
        ["pink star", "green circle", "pentagon", "hexagon", "crescent", "dog", "black shape", "white rectangle"]
    {
        scene.finds(Prompt::text(phrase), &[], 0.0);
    }
}

#[test]
fn exemplars() {
    let mut scene = Scene::new();
    for name in ["blue star", "purple ring", "yellow triangle"] {
        let bbox = SHAPES.iter().find(|(n, ..)| *n == name).unwrap().2.map(|v| v as f32);
        let exemplars = vec![ExemplarBox { xyxy: bbox, positive: true }];
        scene.finds(Prompt::Concept(Concept { text: None, exemplars }), &[name], 0.0);
    }
}

#[test]
fn clicks_and_boxes() {
    let mut scene = Scene::new();
    let clicks = [
        ("red circle", [150.0, 140.0]),
        ("blue star", [400.0, 150.0]),
        ("green square", [650.0, 145.0]),
        ("yellow triangle", [140.0, 450.0]),
        ("red heart", [400.0, 430.0]),
        ("purple ring", [580.0, 420.0]),
        ("blue circle", [255.0, 300.0]),
        ("orange cross", [566.0, 303.0]),
    ];
    for (name, [x, y]) in clicks {
        scene.finds(Prompt::point(x, y), &[name], 0.02);
    }
    for (name, _, bbox) in SHAPES {
        let object = Object { bbox: Some(bbox.map(|v| v as f32)), ..Default::default() };
        scene.finds(Prompt::Object(object), &[name], 0.1);
    }
    // Two clicks, one of them beside it.
    let points = [(580.0, 420.0, true), (650.0, 420.0, false)];
    let points = points.map(|(x, y, positive)| Point { x, y, positive }).to_vec();
    scene.finds(Prompt::Object(Object { points, ..Default::default() }), &["purple ring"], 0.0);
}

#[test]
fn it_is_small_and_says_what_it_is() {
    let model = Model::demo(&ModelOptions::default()).unwrap();
    let info = model.info();
    assert!(info.checkpoint.parameters <= 12_000_000, "{}", info.checkpoint.parameters);
    assert!(sam3::demo::weights().len() <= 24_000_000);
    let origin = info.config.origin.as_deref().unwrap();
    assert!(origin.contains("demo model") && origin.contains("photographs"), "{origin}");
    assert!(!info.config.is_random());
}
