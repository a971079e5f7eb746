//! Every stage against upstream, on tiny seeded checkpoints of odd dimensions.
//!
//! `tests/fixtures/generate.py` made the checkpoints and recorded what `transformers` computes from them. Here the same
//! questions go through the public API, with each intermediate compared under upstream's name: relative L2 at most 1e-4
//! for stages, 1e-3 for final outputs, and thresholded masks by IoU.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use safetensors::{Dtype, SafeTensors};
use sam3::image::Picture;
use sam3::instance::Mask;
use sam3::{
    Concept, Device, ExemplarBox, LowResMask, MaskPrompt, Model, ModelOptions, Object, Point, Prompt, SegmentOptions,
    Segmentation, Session,
};

/// How far a device may be from upstream: relative L2 of stages and of final outputs, IoU of masks.
#[derive(Clone, Copy)]
struct Bounds {
    stage: f64,
    last: f64,
    iou: f64,
    /// Whether a choice between alternatives must be upstream's: which instances pass the threshold and in what order,
    /// which of an object's masks is the best, and on which side of zero a lone logit lies.
    choices: bool,
}

const F32: Bounds = Bounds { stage: 1e-4, last: 1e-3, iou: 0.999, choices: true };

/// Products of operands rounded to bf16 and stored in it, sums and everything else in f32.
///
/// Rounding to 8 bits of significand moves an operand by up to `2⁻⁸·2ᵉ`, its binade beginning at `2ᵉ`: in the mean square
/// over a binade, by `2⁻⁸/√3·0.74 = 1.7·10⁻³` of it. The weight of a product is rounded once, unless it is stored in bf16
/// as most are; its activation when it is stored and, where something is added to it on its way, once more. Two roundings
/// a product: a sum of products of random signs is off by `√2·1.7·10⁻³ = 2.3·10⁻³` of its own L2 norm. The roundings of layers that follow each other are independent, and norms keep the relative error of what they
/// scale. The longest way through a tiny model, from pixels to the masks of the second decoder layer, has some 60 products
/// in sequence: `2.3·10⁻³·√60 = 1.8·10⁻²` in the mean. The bound for stages leaves 1.4 times that, and the one for final
/// outputs, which are differences of nearly equal sums, twice that again. A mask changes where its logits are within the
/// error of the threshold: of logits spread evenly over their range, 5 % at most. Random weights rank alternatives closer
/// than that, so what was chosen is not compared, only what the choice was made from.
#[cfg(feature = "cuda")]
const BF16: Bounds = Bounds { stage: 2.5e-2, last: 5e-2, iou: 0.95, choices: false };

/// What upstream computed, by name: shape, and values as f32.
struct Golden(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Golden {
    fn open(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let values = |t: &safetensors::tensor::TensorView<'_>| -> Vec<f32> {
            match t.dtype() {
                Dtype::F32 => t.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
                Dtype::I64 => {
                    t.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32).collect()
                }
                Dtype::U8 => t.data().iter().map(|&b| b.into()).collect(),
                other => panic!("{other:?}"),
            }
        };
        Self(file.iter().map(|(name, t)| (name.to_string(), (t.shape().to_vec(), values(&t)))).collect())
    }

    fn get(&self, name: &str) -> &[f32] {
        &self.0.get(name).unwrap_or_else(|| panic!("golden has {name}")).1
    }

    fn find(&self, name: &str) -> Option<&[f32]> {
        self.0.get(name).map(|t| &*t.1)
    }

    fn shape(&self, name: &str) -> &[usize] {
        &self.0[name].0
    }

    /// Rows of `n` values.
    fn rows<const N: usize>(&self, name: &str) -> Vec<[f32; N]> {
        self.get(name).chunks_exact(N).map(|c| c.try_into().unwrap()).collect()
    }

    /// Masks of `u8` 0 or 1, the last two dimensions being the picture's.
    fn masks(&self, name: &str) -> Vec<Mask> {
        let shape = self.shape(name);
        let (h, w) = (shape[shape.len() - 2], shape[shape.len() - 1]);
        let bytes = |m: &[f32]| m.iter().map(|&v| if v != 0.0 { 255 } else { 0 }).collect::<Vec<u8>>();
        self.get(name).chunks_exact(h * w).map(|m| Mask::from_u8(w, h, &bytes(m)).unwrap()).collect()
    }
}

fn relative_l2(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |v: f64| v * v;
    let error: f64 = found.iter().zip(expected).map(|(&f, &e)| square(f64::from(f) - f64::from(e))).sum();
    let norm: f64 = expected.iter().map(|&e| square(e.into())).sum();
    // A NaN anywhere must fail, and does: it compares false with every bound.
    (error / norm.max(1e-30)).sqrt()
}

/// One fixture on one device.
struct Bench {
    dir: PathBuf,
    device: Device,
    bounds: Bounds,
    golden: Golden,
    picture: Picture,
    /// Stages compared so far, and the worst error by name.
    seen: BTreeMap<String, f64>,
    failures: Vec<String>,
    /// Bytes of the simulated driver's log when the last model had been opened.
    opened: usize,
}

/// The simulated driver's log, empty where it keeps none and where the driver is not simulated.
fn log() -> String {
    std::env::var_os("SAM3_SIM_LOG").and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
}

type Trace = Arc<Mutex<BTreeMap<String, Vec<f32>>>>;

impl Bench {
    fn new(fixture: &str, device: Device, bounds: Bounds) -> Self {
        // Elsewhere for tests that were carried to another machine.
        let fixtures = std::env::var_os("SAM3_FIXTURES")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"), PathBuf::from);
        let dir = fixtures.join(fixture);
        let golden = Golden::open(&dir.join("golden.safetensors"));
        let picture = Picture::open(dir.join("input.png")).unwrap();
        Self { dir, device, bounds, golden, picture, seen: BTreeMap::new(), failures: Vec::new(), opened: 0 }
    }

    /// A session of its own model, so that no phrase is known from another case, and its trace.
    fn session(&mut self) -> (Session, Trace) {
        let model = Model::open(&self.dir, &ModelOptions::on(self.device).threads(2)).unwrap();
        self.opened = log().len();
        let mut session = model.session();
        let trace = Trace::default();
        let sink = trace.clone();
        session.on_trace(move |name, values| {
            sink.lock().unwrap().insert(name.to_string(), values.to_vec());
        });
        (session, trace)
    }

    fn check(&mut self, name: &str, found: &[f32], expected: &[f32], bound: f64) {
        let error = if found.len() == expected.len() { relative_l2(found, expected) } else { f64::NAN };
        let key = name.split_once('/').map_or(name, |(_, stage)| stage).to_string();
        let worst = self.seen.entry(key).or_default();
        *worst = if error > *worst || error.is_nan() { error } else { *worst };
        if error.is_nan() || error > bound {
            let lengths = (found.len(), expected.len());
            self.failures.push(format!("{name}: relative L2 {error:.3e} exceeds {bound:.0e}, lengths {lengths:?}"));
        }
    }

    fn check_final(&mut self, name: &str, found: &[f32]) {
        let expected = self.golden.get(name).to_vec();
        self.check(name, found, &expected, self.bounds.last);
    }

    fn check_masks(&mut self, name: &str, found: &[&Mask]) {
        let expected = self.golden.masks(name);
        if found.len() != expected.len() {
            self.failures.push(format!("{name}: {} masks, expected {}", found.len(), expected.len()));
        }
        for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
            let iou = f.iou(e);
            if !(iou >= self.bounds.iou || f.area() + e.area() == 0) {
                self.failures.push(format!("{name}[{i}]: IoU {iou:.5} below {}", self.bounds.iou));
            }
        }
    }

    /// Compares everything traced that upstream recorded for `case` or for the picture.
    fn check_trace(&mut self, case: &str, trace: &Trace) {
        let trace = std::mem::take(&mut *trace.lock().unwrap());
        for (name, values) in &trace {
            let scoped = format!("{case}/{name}");
            let expected = match (self.golden.find(&scoped), self.golden.find(name)) {
                (Some(e), _) => e.to_vec(),
                (None, Some(e)) if name == "pixels" => tokens_first(e, 3),
                (None, Some(e)) => e.to_vec(),
                (None, None) => continue,
            };
            self.check(&scoped, values, &expected, self.bounds.stage);
        }
    }

    fn require(&mut self, stages: &[&str]) {
        let seen: BTreeSet<&str> = self.seen.keys().map(String::as_str).collect();
        for stage in stages {
            assert!(seen.contains(stage), "no stage {stage} was compared; compared: {seen:?}");
        }
    }

    fn finish(self) {
        for (name, error) in &self.seen {
            println!("{:9} {name:24} {error:.2e}", self.device.to_string());
        }
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
    }

    fn concept(&mut self, case: &str, text: Option<&str>) {
        let (mut session, trace) = self.session();
        let mut exemplars = Vec::new();
        if self.golden.find(&format!("{case}/boxes_px")).is_some() {
            let labels = self.golden.get(&format!("{case}/labels")).to_vec();
            let boxes = self.golden.rows::<4>(&format!("{case}/boxes_px"));
            exemplars =
                boxes.into_iter().zip(labels).map(|(xyxy, l)| ExemplarBox { xyxy, positive: l == 1.0 }).collect();
        }
        let prompt = Prompt::Concept(Concept { text: text.map(str::to_string), exemplars });
        let mut options = SegmentOptions::default();
        options.threshold = self.golden.get(&format!("{case}/threshold"))[0];
        options.semantic = true;
        let image = session.encode(&self.picture.view()).unwrap();
        // Once as a caller would ask, with masks for what is kept; once for all raw outputs.
        let kept = session.segment(&image, std::slice::from_ref(&prompt), &options).unwrap();
        options.raw = true;
        let all = session.segment(&image, &[prompt], &options).unwrap();
        self.check_trace(case, &trace);
        for raw in &all.prompts[0].raw {
            self.check_final(&format!("{case}/{}", raw.name), &raw.values);
        }
        self.check_answer(case, &kept);
        assert_eq!(kept.instances, all.instances, "{case}: the masks do not depend on what else is asked");
    }

    /// Upstream keeps the queries' order; answers are sorted.
    fn check_answer(&mut self, case: &str, answer: &Segmentation) {
        if !self.bounds.choices {
            return;
        }
        let scores = self.golden.get(&format!("{case}/post/scores")).to_vec();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let boxes = self.golden.rows::<4>(&format!("{case}/post/boxes"));
        let sorted: Vec<f32> = order.iter().map(|&i| scores[i]).collect();
        let found: Vec<f32> = answer.instances.iter().map(|i| i.score).collect();
        self.check(&format!("{case}/post/scores"), &found, &sorted, self.bounds.last);
        let sorted: Vec<f32> = order.iter().flat_map(|&i| boxes[i]).collect();
        let found: Vec<f32> = answer.instances.iter().flat_map(|i| i.bbox).collect();
        self.check(&format!("{case}/post/boxes"), &found, &sorted, self.bounds.last);
        let expected = self.golden.masks(&format!("{case}/post/masks"));
        for (k, (&i, found)) in order.iter().zip(&answer.instances).enumerate() {
            let iou = found.mask.iou(&expected[i]);
            if !(iou >= self.bounds.iou || found.mask.is_empty() && expected[i].is_empty()) {
                self.failures.push(format!("{case}/post/masks[{k}]: IoU {iou:.5} below {}", self.bounds.iou));
            }
        }
        let semantic = answer.prompts[0].semantic.clone().unwrap();
        self.check_masks(&format!("{case}/post/semantic"), &[&semantic]);
    }

    fn object(&mut self, case: &str) {
        let (mut session, trace) = self.session();
        let image = session.encode(&self.picture.view()).unwrap();
        let side = session.model().mask_side();
        let count = self.golden.shape(&format!("{case}/single/iou_scores"))[0];
        let objects: Vec<Object> = (0..count).map(|i| self.golden_object(case, i, count, side)).collect();
        for (mode, multimask) in [("single", false), ("multi", true)] {
            let chosen = mode == "single" && !self.bounds.choices;
            let mut options = SegmentOptions::default();
            (options.multimask, options.raw) = (multimask, true);
            let mut raw: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
            let mut masks = Vec::new();
            for (i, object) in objects.iter().enumerate() {
                let answer = session.segment(&image, &[Prompt::Object(object.clone())], &options).unwrap();
                for tensor in &answer.prompts[0].raw {
                    raw.entry(tensor.name).or_default().extend(&tensor.values);
                }
                // The answer is sorted by predicted IoU; upstream's masks are in token order.
                let ious = &answer.prompts[0].raw.iter().find(|t| t.name == "iou_scores").unwrap().values;
                let mut order: Vec<usize> = (0..ious.len()).collect();
                order.sort_by(|&a, &b| ious[b].total_cmp(&ious[a]));
                let mut by_token = vec![Mask::new(0, 0); ious.len()];
                order.iter().zip(&answer.instances).for_each(|(&t, found)| by_token[t] = found.mask.clone());
                masks.extend(by_token);
                if objects.len() == 1 {
                    self.check_trace(case, &trace);
                } else {
                    let sparse = trace.lock().unwrap()["sparse"].clone();
                    let mut rows = self.golden.get(&format!("{case}/sparse")).chunks_exact(sparse.len());
                    let expected = rows.nth(i).unwrap().to_vec();
                    self.check(&format!("{case}/sparse"), &sparse, &expected, self.bounds.stage);
                }
            }
            for (name, values) in raw {
                let name = format!("{case}/{mode}/{name}");
                let lone = name.ends_with("object_score_logits") && !self.bounds.choices;
                if self.golden.find(&name).is_some() && !chosen && !lone {
                    self.check_final(&name, &values);
                }
            }
            let name = format!("{case}/{mode}/masks");
            if self.golden.find(&name).is_some() && !chosen {
                self.check_masks(&name, &masks.iter().collect::<Vec<_>>());
            }
        }
    }

    /// The `i`-th of `count` objects of a case, in pixels of the picture.
    fn golden_object(&self, case: &str, i: usize, count: usize, side: usize) -> Object {
        let part = |name: &str| -> Option<Vec<f32>> {
            let all = self.golden.find(&format!("{case}/{name}"))?;
            Some(all.chunks_exact(all.len() / count).nth(i).unwrap().to_vec())
        };
        let mut object = Object::default();
        if let (Some(points), Some(labels)) = (part("points_px"), part("labels")) {
            let point = |(p, &l): (&[f32], &f32)| Point { x: p[0], y: p[1], positive: l == 1.0 };
            object.points = points.chunks_exact(2).zip(&labels).map(point).collect();
        }
        object.bbox = part("boxes_px").map(|b| b.try_into().unwrap());
        if let Some(mask) = part("mask_px") {
            let (height, width) = (self.picture.height(), self.picture.width());
            let pixels: Vec<u8> = mask.iter().map(|&v| if v != 0.0 { 255 } else { 0 }).collect();
            object.mask = Some(MaskPrompt::Picture { pixels: pixels.into(), width, height });
        } else if let Some(logits) = part("input_masks") {
            object.mask = Some(if logits.len() == side * side {
                MaskPrompt::Logits(LowResMask::new(logits, side).unwrap())
            } else {
                let (height, width) = (self.picture.height(), self.picture.width());
                let pixels: Vec<u8> = logits.iter().map(|&v| if v > 0.0 { 255 } else { 0 }).collect();
                MaskPrompt::Picture { pixels: pixels.into(), width, height }
            });
        } else if case == "mask_point" {
            // The same mask as in the case `mask`, with a click.
            object.mask = self.golden_object("mask", 0, 1, side).mask;
        }
        object
    }
}

/// `[c, n]` to `[n, c]`.
fn tokens_first(planes: &[f32], c: usize) -> Vec<f32> {
    let n = planes.len() / c;
    (0..n * c).map(|i| planes[i % c * n + i / c]).collect()
}

fn run(fixture: &str, device: Device, bounds: Bounds, short: &str, long: &str) {
    let mut bench = Bench::new(fixture, device, bounds);
    bench.concept("text", Some(short));
    bench.concept("text2", Some(long));
    bench.concept("exemplar", None);
    bench.concept("exemplars", None);
    bench.concept("text_exemplar", Some(short));
    for case in ["point", "points", "box", "box_points", "mask", "mask_point", "logits", "multi_objects"] {
        bench.object(case);
    }
    let stages = [
        "pixels",
        "vit.embed",
        "vit.pre",
        "vit.layer.0",
        "vit.layer.1",
        "vit.layer.2",
        "neck.0",
        "neck.1",
        "neck.2",
        "neck_pos.2",
        "tracker_neck.1",
        "tracker_neck.2",
        "tracker.s0",
        "tracker.s1",
        "tracker.top",
        "tracker.pe",
        "text.layer.0",
        "text.layer.1",
        "text.norm",
        "text",
        "geometry.embed",
        "geometry.layer.0",
        "geometry",
        "prompt",
        "fusion.0",
        "decoder.0",
        "decoder.1",
        "reference_boxes.0",
        "reference_boxes.1",
        "reference_boxes.2",
        "pred_logits",
        "pred_boxes",
        "presence_logits",
        "pred_masks",
        "semantic_seg",
        "post/scores",
        "post/boxes",
        "sparse",
        "dense",
        "twoway.0.queries",
        "twoway.0.keys",
        "twoway.1.queries",
        "twoway.1.keys",
        "twoway.out",
        "upscaled",
        "single/pred_masks",
        "single/iou_scores",
        "single/object_score_logits",
        "multi/pred_masks",
        "multi/iou_scores",
        "multi/object_score_logits",
    ];
    let choices = ["post/", "single/", "object_score_logits"];
    let all = stages.iter().filter(|s| bounds.choices || !choices.iter().any(|c| s.contains(c)));
    bench.require(&all.copied().collect::<Vec<_>>());
    bench.finish();
}

/// Heads of 64 in windows of 12 and over the whole grid, which Hopper's attention takes: a picture and a phrase.
fn run_wide(device: Device, bounds: Bounds) {
    let mut bench = Bench::new("tiny-c", device, bounds);
    bench.concept("text", Some("red circle"));
    let stages = ["vit.layer.0", "vit.layer.1", "neck.2", "fusion.0", "decoder.1", "pred_logits", "pred_masks"];
    bench.require(&stages);
    if std::env::var("SAM3_SIM_PROCESSORS").is_ok_and(|n| n == "1") {
        let log = log();
        let count =
            |kernel: &str| log[bench.opened..].lines().filter(|l| l.starts_with(&format!("launch {kernel}"))).count();
        // Of two layers; the four products of each.
        assert_eq!(count("attention_sm90a"), 2, "attentions of the ViT on Hopper's kernel");
        assert!(count("gemm_sm90a") >= 8, "products of the ViT on Hopper's kernel");
    }
    bench.finish();
}

const A: (&str, &str) = ("red circle", "a small blue box on the left, 2 lines");
const B: (&str, &str) = ("green stripe", "the YELLOW sun's reflection");

#[test]
fn reference_published_layout() {
    run("tiny-a", Device::Reference, F32, A.0, A.1);
}

#[test]
fn reference_saved_layout_bf16_padded_windows() {
    run("tiny-b", Device::Reference, F32, B.0, B.1);
}

#[test]
fn cpu_published_layout() {
    run("tiny-a", Device::Cpu, F32, A.0, A.1);
}

#[test]
fn cpu_saved_layout_bf16_padded_windows() {
    run("tiny-b", Device::Cpu, F32, B.0, B.1);
}

#[test]
fn reference_wide_heads() {
    run_wide(Device::Reference, F32);
}

#[test]
fn cpu_wide_heads() {
    run_wide(Device::Cpu, F32);
}

/// On the CUDA device, or the simulated one; `SAM3_PRECISION` chooses what it computes in.
#[cfg(feature = "cuda")]
fn cuda(run: impl FnOnce(Device, Bounds)) {
    use sam3::cuda::{Precision, devices};

    let required = std::env::var_os("SAM3_REQUIRE_CUDA").is_some_and(|v| v == "1");
    let bounds = match Precision::from_env().unwrap() {
        Precision::Bf16 => BF16,
        Precision::F32 => F32,
    };
    match devices() {
        Err(e) if !required => println!("skipped: {e}"),
        Err(e) => panic!("{e}"),
        Ok(_) => run(Device::Cuda(0), bounds),
    }
}

#[cfg(feature = "cuda")]
#[test]
fn cuda_published_layout() {
    cuda(|device, bounds| run("tiny-a", device, bounds, A.0, A.1));
}

#[cfg(feature = "cuda")]
#[test]
fn cuda_saved_layout_bf16_padded_windows() {
    cuda(|device, bounds| run("tiny-b", device, bounds, B.0, B.1));
}

#[cfg(feature = "cuda")]
#[test]
fn cuda_wide_heads() {
    cuda(run_wide);
}

/// Two of the tests above with another setting, each in a process of its own, since the environment is the process's and
/// one of them reads its driver's log.
#[cfg(feature = "cuda")]
fn cuda_again(tests: [&str; 2], setting: &str, value: &str) {
    let start = |test: &&str| {
        let log = std::env::temp_dir().join(format!("sam3-{test}-{setting}-{}", std::process::id()));
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", *test, "--nocapture"]).env(setting, value).env("SAM3_SIM_LOG", &log);
        let piped = std::process::Stdio::piped;
        (command.stdout(piped()).stderr(piped()).spawn().unwrap(), log)
    };
    for (child, log) in tests.iter().map(start).collect::<Vec<_>>() {
        let output = child.wait_with_output().unwrap();
        let _ = std::fs::remove_file(&log);
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        println!("{text}");
    }
}

#[cfg(feature = "cuda")]
#[test]
fn cuda_in_f32() {
    cuda_again(["cuda_published_layout", "cuda_saved_layout_bf16_padded_windows"], "SAM3_PRECISION", "f32");
}

/// On a simulated Hopper of one multiprocessor, for which no tile of its kernels is too large.
#[cfg(feature = "cuda")]
#[test]
fn cuda_on_small_hopper() {
    if sam3::cuda::Listing::of(0).is_ok_and(|device| device.name == "CPU simulator") {
        cuda_again(["cuda_wide_heads", "cuda_saved_layout_bf16_padded_windows"], "SAM3_SIM_PROCESSORS", "1");
    }
}
