//! `sam3 info`.

use sam3::{Gpu, Model, Result};

use crate::args;
use crate::outputs::say;

/// Prints what this machine offers and, with a model, what it is.
pub fn run(args: &args::Model) -> Result<()> {
    say(&machine()?)?;
    if args.path.is_none() && !cfg!(feature = "demo-model") {
        return say("model         none: name one with --model PATH or SAM3_MODEL\n");
    }
    say(&model(&args.name(), &args.open()?))
}

fn machine() -> Result<String> {
    let machine = sam3::Machine::look()?;
    Ok([
        format!("sam3 {}\n", env!("CARGO_PKG_VERSION")),
        format!("processor     {}\n", machine.cpu.as_deref().unwrap_or("unknown")),
        format!("cores         {}\n", machine.cores),
        format!("kernels       {} chosen; here: {}\n", machine.isa, machine.isas.join(", ")),
        format!("devices       {}\n", machine.devices.join(", ")),
        machine.gpus.iter().map(gpu).collect(),
        machine.passed_over.map(|why| format!("no GPU        {why}\n")).unwrap_or_default(),
    ]
    .concat())
}

fn gpu(gpu: &Gpu) -> String {
    let (major, minor) = gpu.capability;
    let memory = match gpu.memory {
        Some((all, free)) => format!(", {:.1} of {:.1} GB free", free as f64 / 1e9, all as f64 / 1e9),
        None => String::new(),
    };
    format!("cuda:{:<8} {}, compute capability {major}.{minor}{memory}\n", gpu.index, gpu.name)
}

fn model(name: &str, model: &Model) -> String {
    let info = model.info();
    let (c, v) = (&info.checkpoint, &info.config.vision);
    let (size, patch, layers, width, window) = (v.image_size, v.patch_size, v.layers, v.hidden_size, v.window_size);
    let types: Vec<&str> = c.dtypes.keys().map(String::as_str).collect();
    let (tensors, parameters, bytes, types) = (c.tensors, mega(c.parameters), mega(c.bytes), types.join(", "));
    let concepts = match &info.config.detector {
        Some(d) => format!(
            "{} queries; phrases of up to {} tokens of {}; tokenizer: {}",
            d.queries,
            d.text.context,
            d.text.vocab_size,
            info.tokenizer.unwrap_or("none")
        ),
        None => "no: this checkpoint has no detector".into(),
    };
    let side = model.mask_side();
    let objects = match &info.config.tracker {
        Some(t) => format!("up to {} masks of {side}×{side}", t.multimask_outputs),
        None => "no: this checkpoint has no tracker".into(),
    };
    [
        format!("model         {name}\n"),
        format!("layout        {}\n", c.layout),
        format!("weights       {}\n", weights(&info.config)),
        format!("tensors       {tensors} with {parameters:.1} M parameters, {bytes:.1} MB, {types}\n"),
        format!("runs on       {}\n", info.device),
        info.passed_over.as_ref().filter(|p| p.driver).map(|why| format!("not on a GPU  {why}\n")).unwrap_or_default(),
        format!(
            "picture       {size}×{size} px, patches of {patch} px, {layers} layers of {width}, windows of {window}\n"
        ),
        format!("concepts      {concepts}\n"),
        format!("objects       {objects}\n"),
    ]
    .concat()
}

/// Where the weights come from, and what follows from it.
fn weights(config: &sam3::weights::Config) -> String {
    match &config.origin {
        Some(origin) if config.is_random() => format!("{origin}: RANDOM, so masks mean nothing"),
        Some(origin) => origin.clone(),
        None => "of unstated origin".into(),
    }
}

fn mega(n: u64) -> f64 {
    n as f64 / 1e6
}
