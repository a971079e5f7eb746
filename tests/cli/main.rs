//! The command line as a user meets it: the built binary on tiny checkpoints whose answers upstream recorded.
//!
//! Every job runs in a fresh folder, so that whatever it leaves behind shows.
#![cfg(feature = "cli")]

mod arguments;
mod bench;
mod damage;
mod golden;
mod harness;
mod machine;
mod outputs;
mod writing;
