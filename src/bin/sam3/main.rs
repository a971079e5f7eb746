//! The command line: `sam3 segment`, `sam3 serve`, `sam3 bench` and `sam3 info`, on the public API alone.
//!
//! Exit codes: 0 done; 1 the job failed; 2 the arguments are wrong. Messages go to stderr and say what to do; stdout
//! holds what was asked for and nothing else.

mod args;
mod bench;
mod info;
mod outputs;
mod progress;
mod segment;
#[cfg(feature = "serve")]
mod serve;
mod tensors;

use std::io::Write;
use std::process::ExitCode;

use sam3::{Error, ErrorKind};

fn main() -> ExitCode {
    let matches = args::command().get_matches();
    let result = match matches.subcommand() {
        Some(("segment", m)) => args::Segment::parse(m).and_then(|a| segment::run(&a)),
        Some(("bench", m)) => bench::Bench::parse(m).and_then(|a| bench::run(&a)),
        #[cfg(feature = "serve")]
        Some(("serve", m)) => serve::parse(m).and_then(|a| serve::run(&a)),
        Some(("info", m)) => args::Model::parse(m).and_then(|a| info::run(&a)),
        _ => unreachable!("clap requires a subcommand"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // If nobody can be told, the exit code still says it.
            let _ = writeln!(std::io::stderr(), "sam3: {e}");
            ExitCode::from(exit_code(&e))
        }
    }
}

/// 2 for what the user wrote, 1 for what befell the job.
fn exit_code(e: &Error) -> u8 {
    if e.kind() == ErrorKind::InvalidArgument { 2 } else { 1 }
}
