//! The C interface from outside: programs in C and C++, built by the compilers of this machine against the header and
//! the library that cargo left beside this test, and what they find compared with the Rust interface, bit for bit.
//!
//! Where there is no compiler, the tests say so and pass; with `SAM3_REQUIRE_CC=1` they fail instead. A library
//! that was built with other features since is told apart (`tools::libraries`).
#![cfg(target_os = "linux")]

mod beside;
mod checkers;
mod cinstall;
mod expected;
#[cfg(feature = "cuda")]
mod gpus;
mod hosts;
mod panics;
mod programs;
mod surface;
mod tools;
