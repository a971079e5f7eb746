//! `sam3 info`.

use sam3::{Model, Result};

use crate::args;

/// Prints what this machine offers and, with a model, what it is.
pub fn run(args: &args::Model) -> Result<()> {
    let machine = sam3::Machine::look()?;
    println!("sam3 {}", env!("CARGO_PKG_VERSION"));
    println!("cores         {}", machine.cores);
    println!("kernels       {} chosen; here: {}", machine.isa, machine.isas.join(", "));
    println!("devices       {}", machine.devices.join(", "));
    let Some(path) = &args.path else {
        println!("model         none: name one with --model PATH or SAM3_MODEL");
        return Ok(());
    };
    let model = Model::open(path, &args.options)?;
    let info = model.info();
    let (c, v) = (&info.checkpoint, &info.config.vision);
    println!("model         {}", path.display());
    println!("layout        {}", c.layout);
    let types: Vec<&str> = c.dtypes.keys().map(String::as_str).collect();
    println!(
        "tensors       {} with {:.1} M parameters, {:.1} MB, {}",
        c.tensors,
        mega(c.parameters),
        mega(c.bytes),
        types.join(", ")
    );
    println!("runs on       {}", info.device);
    println!(
        "picture       {0}×{0} px, patches of {1} px, {2} layers of {3}, windows of {4}",
        v.image_size, v.patch_size, v.layers, v.hidden_size, v.window_size
    );
    match &info.config.detector {
        Some(d) => println!(
            "concepts      {} queries; phrases of up to {} tokens of {}; tokenizer: {}",
            d.queries,
            d.text.context,
            d.text.vocab_size,
            info.tokenizer.unwrap_or("none")
        ),
        None => println!("concepts      no: this checkpoint has no detector"),
    }
    let side = model.mask_side();
    match &info.config.tracker {
        Some(t) => println!("objects       up to {} masks of {side}×{side}", t.multimask_outputs),
        None => println!("objects       no: this checkpoint has no tracker"),
    }
    Ok(())
}

fn mega(n: u64) -> f64 {
    n as f64 / 1e6
}
