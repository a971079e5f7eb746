//! The CUDA back end on a GPU, timed by events on its stream with the L2 cache flushed before each run; one line of JSON per
//! result. `tools/gpu_check.sh` runs it beside PyTorch; by hand:
//!
//!     cargo bench --bench cuda -- kernels
//!     cargo bench --bench cuda -- model CHECKPOINT PICTURE
//!     cargo bench --bench cuda -- stages CHECKPOINT OUT PICTURE...      OUT.0, OUT.1, ... in safetensors
//!
//! `SAM3_BENCH_RUNS` is how often (30), `SAM3_BENCH_TINY=1` makes shapes small enough for the simulator.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use safetensors::tensor::TensorView;
use sam3::cuda::{CudaOps, Precision};
use sam3::image::Picture;
use sam3::ops::{Activation, Attention, Epilogue, Linear, Ops, Pattern, Turn, View};
use sam3::weights::HostTensor;
use sam3::{Device, Machine, Model, ModelOptions, Prompt, Result, SegmentOptions};
use serde_json::{Value, json};

type Act = <CudaOps as Ops>::Act;

/// Floats of the buffer that is copied to flush the cache: 256 MiB, several times the largest L2 there is.
const FLUSH: usize = 64 << 20;

fn runs() -> usize {
    std::env::var("SAM3_BENCH_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(30)
}

fn tiny() -> bool {
    std::env::var_os("SAM3_BENCH_TINY").is_some_and(|v| v == "1")
}

/// Numbers as of a normal distribution, near enough: the sum of four uniform ones, from a linear congruential generator.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| (uniform() + uniform() + uniform() + uniform()) * 1.7).collect()
}

/// What is no operand: a residual, a bias.
fn floats(ops: &CudaOps, n: usize, seed: u64) -> Result<Act> {
    let mut act = Act::default();
    ops.upload(&noise(n, seed), &mut act)?;
    Ok(act)
}

/// An operand of products, stored as the model has it.
fn operand(ops: &CudaOps, n: usize, seed: u64) -> Result<Act> {
    let mut act = CudaOps::operand();
    ops.copy(View::new(&floats(ops, n, seed)?, n), 1, n, &mut act, 0)?;
    Ok(act)
}

fn layer(ops: &CudaOps, n: usize, k: usize) -> Result<Linear<CudaOps>> {
    let scaled = noise(n * k, 7).into_iter().map(|v| v / (k as f32).sqrt()).collect();
    let w = ops.matrix(&[HostTensor::from_f32("w", &[n, k], scaled)?])?;
    Ok(Linear { w, b: Some(floats(ops, n, 9)?), n, k })
}

/// What lies in the cache is something else.
struct Flush {
    ops: CudaOps,
    from: Act,
    to: Act,
    floats: usize,
}

impl Flush {
    fn new() -> Result<Self> {
        let (ops, floats) = (CudaOps::new(0, Precision::F32)?, if tiny() { 1 << 10 } else { FLUSH });
        let (mut from, to) = (Act::default(), Act::default());
        ops.upload(&vec![1.0; floats], &mut from)?;
        Ok(Self { ops, from, to, floats })
    }

    fn run(&mut self) -> Result<()> {
        self.ops.copy(View::new(&self.from, self.floats), 1, self.floats, &mut self.to, 0)?;
        self.ops.download(&self.to, 0, &mut [0.0])
    }
}

/// Median, least and greatest of `times` in milliseconds.
fn summary(mut times: Vec<f64>) -> Value {
    times.sort_by(f64::total_cmp);
    let n = times.len();
    json!({ "median_ms": times[n / 2], "min_ms": times[0], "max_ms": times[n - 1], "runs": n })
}

fn say(name: &str, facts: Value, times: Vec<f64>) {
    let mut line = summary(times);
    line["name"] = name.into();
    line["facts"] = facts;
    println!("{line}");
}

/// Times `work` on the device.
fn measure(ops: &CudaOps, flush: &mut Flush, mut work: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    (0..3).try_for_each(|_| work())?;
    (0..runs())
        .map(|_| {
            flush.run()?;
            let ((), clock) = ops.stage(&mut work)?;
            Ok(ops.elapsed(clock)?.as_secs_f64() * 1e3)
        })
        .collect()
}

/// Products and attention at the encoder's shapes, and the decoder's cross-attention.
fn kernels() -> Result<()> {
    let ops = CudaOps::new(0, Precision::Bf16)?;
    let flush = &mut Flush::new()?;
    // Tokens a side, width, inner width of the MLP, channels behind the neck.
    let (grid, c, mlp, d, size) = if tiny() { (8, 64, 160, 32, 4) } else { (72, 1024, 4736, 256, 24) };
    let t = grid * grid;
    let heads = if tiny() { 2 } else { 16 };
    let head = c / heads;
    let angles = floats(&ops, t * head, 5)?;
    for (name, n, k, act, residual) in [
        ("qkv", 3 * c, c, Activation::None, false),
        ("proj", c, c, Activation::None, true),
        ("fc1", mlp, c, Activation::Gelu, false),
        ("fc2", c, mlp, Activation::None, true),
    ] {
        let (x, l, add) = (operand(&ops, t * k, 1)?, layer(&ops, n, k)?, floats(&ops, t * n, 2)?);
        // The residual stream is f32, what goes into the next product is not.
        let mut y = if residual { Act::default() } else { CudaOps::operand() };
        let times = measure(&ops, flush, || {
            let add = residual.then(|| View::new(&add, n));
            let turn = (name == "qkv").then_some(Turn { angles: &angles, head_dim: head, columns: 2 * c });
            ops.linear(View::new(&x, k), &l, t, Epilogue { add, act, turn }, &mut y)
        })?;
        say(name, json!({ "kind": "gemm", "m": t, "n": n, "k": k, "flop": 2 * t * n * k }), times);
    }
    for scale in [1, 2, 4] {
        let side = grid * scale;
        let (x, l) = (operand(&ops, side * side * d, 1)?, layer(&ops, d, 9 * d)?);
        let mut y = CudaOps::operand();
        let times = measure(&ops, flush, || ops.conv3x3(&x, &l, side, side, &mut y))?;
        let facts = json!({ "kind": "conv3x3", "side": side, "channels": d, "flop": 18 * side * side * d * d });
        say(&format!("conv3x3_{side}"), facts, times);
    }
    let qkv = operand(&ops, t * 3 * c, 3)?;
    let column = |i: usize| View::columns(&qkv, i * c, 3 * c);
    for windows in [true, false] {
        let tokens = if windows { size * size } else { t };
        let pattern = || match windows {
            true => Pattern::Windows { height: grid, width: grid, size, padding: None },
            false => Pattern::Full,
        };
        let mut y = CudaOps::operand();
        let times = measure(&ops, flush, || {
            let spec = Attention { pattern: pattern(), ..Attention::full(heads, head, t, t) };
            ops.attention(column(0), column(1), column(2), &spec, &mut y)
        })?;
        let facts = json!({
            "kind": "attention", "heads": heads, "head": head, "queries": tokens, "keys": tokens,
            "windows": t / tokens, "flop": 4 * t * tokens * c,
        });
        say(if windows { "attention_windows" } else { "attention_global" }, facts, times);
    }
    let (queries, heads) = (if tiny() { 5 } else { 201 }, if tiny() { 2 } else { 8 });
    let (q, kv) = (operand(&ops, queries * d, 1)?, operand(&ops, t * 2 * d, 2)?);
    let mut y = CudaOps::operand();
    let times = measure(&ops, flush, || {
        let spec = Attention::full(heads, d / heads, queries, t);
        ops.attention(View::new(&q, d), View::columns(&kv, 0, 2 * d), View::columns(&kv, d, 2 * d), &spec, &mut y)
    })?;
    let facts = json!({
        "kind": "attention", "heads": heads, "head": d / heads, "queries": queries, "keys": t, "windows": 1,
        "flop": 4 * queries * t * d,
    });
    say("attention_cross", facts, times);
    Ok(())
}

/// Free bytes of device memory.
fn free() -> Option<u64> {
    Machine::look().ok()?.gpus.first()?.memory.map(|(_, free)| free)
}

/// A picture, a phrase and a click, each stage by its clock and each way as a caller waits for it.
fn model(checkpoint: &Path, picture: &Path) -> Result<()> {
    let picture = Picture::open(picture)?;
    let before = free();
    let model = Model::open(checkpoint, &ModelOptions::on(Device::Cuda(0)))?;
    let mut session = model.session();
    // Random weights may find nothing sure: the ten best, whatever they score, so that there are masks to make.
    let mut options = SegmentOptions::default();
    (options.threshold, options.max_masks) = (0.0, Some(10));
    let (w, h) = (picture.width() as f32, picture.height() as f32);
    let click = || [Prompt::point(w * 0.5, h * 0.45)];
    // Another phrase each time, so that none is known; all are one word.
    let phrase = |i: usize| [Prompt::text(["cat", "dog", "car", "cup", "man"][i % 5].to_owned() + &" ".repeat(i / 5))];
    let image = session.encode(&picture.view())?;
    for i in 0..3 {
        session.encode(&picture.view())?;
        session.segment(&image, &phrase(i), &options)?;
        session.segment(&image, &click(), &options)?;
    }
    let used = before.zip(free()).map(|(before, after)| before.saturating_sub(after));
    let flush = &mut Flush::new()?;
    for way in ["encode", "picture", "phrase", "click"] {
        let (mut waited, mut stages) = (Vec::new(), BTreeMap::<&str, Vec<f64>>::new());
        for i in 0..runs() {
            flush.run()?;
            session.take_timings();
            let start = Instant::now();
            match way {
                "encode" => drop(session.encode(&picture.view())?),
                "picture" => drop(session.run(&picture.view(), &phrase(3 + 2 * i), &options)?),
                "phrase" => drop(session.segment(&image, &phrase(4 + 2 * i), &options)?),
                _ => drop(session.segment(&image, &click(), &options)?),
            }
            // The picture's encoding is waited for here.
            let timings = session.take_timings();
            waited.push(start.elapsed().as_secs_f64() * 1e3);
            timings.iter().for_each(|(name, t)| stages.entry(name).or_default().push(t.as_secs_f64() * 1e3));
        }
        say(way, json!({ "kind": "wall" }), waited);
        for (stage, times) in stages {
            say(&format!("{way}/{stage}"), json!({ "kind": "device" }), times);
        }
    }
    println!("{}", json!({ "name": "memory", "facts": { "bytes": used, "device": model.info().device } }));
    Ok(())
}

/// Every intermediate of a phrase and a click on each picture, under upstream's names. Of pictures behind the first the
/// answers alone, which are single numbers in part: one picture says little of those.
fn stages(checkpoint: &Path, out: &Path, pictures: &[&str]) -> Result<()> {
    let model = Model::open(checkpoint, &ModelOptions::on(Device::Cuda(0)))?;
    for (i, picture) in pictures.iter().enumerate() {
        let mut name = out.as_os_str().to_owned();
        name.push(format!(".{i}"));
        stages_of(&model, &Picture::open(Path::new(picture))?, Path::new(&name), i == 0)?;
    }
    Ok(())
}

fn stages_of(model: &Model, picture: &Picture, out: &Path, whole: bool) -> Result<()> {
    let mut session = model.session();
    let all: Arc<Mutex<BTreeMap<String, Vec<f32>>>> = Arc::default();
    let mut options = SegmentOptions::default();
    options.raw = true;
    let (w, h) = (picture.width() as f32, picture.height() as f32);
    let image = session.encode(&picture.view())?;
    for (case, prompt) in [("text", Prompt::text("cat")), ("point", Prompt::point(w * 0.5, h * 0.45))] {
        let sink = all.clone();
        if whole {
            session.on_trace(move |name, values| {
                sink.lock().unwrap().insert(format!("{case}/{name}"), values.to_vec());
            });
        }
        session.encode(&picture.view())?;
        let answer = session.segment(&image, &[prompt], &options)?;
        for raw in &answer.prompts[0].raw {
            all.lock().unwrap().insert(format!("{case}/out.{}", raw.name), raw.values.clone());
        }
    }
    let all = all.lock().unwrap();
    let tensors = all.iter().map(|(name, values)| {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        (name, TensorView::new(safetensors::Dtype::F32, vec![values.len()], bytes).expect("a flat tensor"))
    });
    let bytes = safetensors::serialize(tensors, None).expect("names are valid");
    sam3::image::write_file(out, &bytes)
}

fn main() -> Result<()> {
    // Cargo's own option is passed through.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["kernels"] => kernels(),
        ["model", checkpoint, picture] => model(Path::new(checkpoint), Path::new(picture)),
        ["stages", checkpoint, out, ref pictures @ ..] => stages(Path::new(checkpoint), Path::new(out), pictures),
        [] if sam3::cuda::devices().is_err() => {
            println!("skipped: no CUDA device");
            Ok(())
        }
        [] => kernels(),
        _ => {
            Err(sam3::Error::invalid("expected kernels, model CHECKPOINT PICTURE or stages CHECKPOINT OUT PICTURE..."))
        }
    }
}
