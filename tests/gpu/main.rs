//! The CUDA back end's host half on the simulated GPU: what is refused and how, that nothing is leaked and a model goes on
//! after a failure, and what a warm call asks the driver for. `tools/with_simulated_gpu.sh cargo test --test gpu`; skipped
//! otherwise.

#![cfg(all(feature = "cuda", feature = "cli", target_os = "linux"))]

mod calls;
mod harness;
mod refusals;
