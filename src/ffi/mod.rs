//! The C interface of `include/sam3.h`, feature `capi`.
//!
//! Every function here is a thin shell round the public Rust API, and uses nothing else of the crate. The header is
//! made from these files by cbindgen (`tests/header.rs`), so their documentation is written for people who read C.
//!
//! | file | what it holds |
//! |---|---|
//! | `boundary` | what every call goes through: pointers checked, panics caught, errors handed out |
//! | `status`, `error` | numbers and messages of failures |
//! | `plain` | the structs that cross by value or by address, and how they grow |
//! | `version`, `devices`, `log` | what this build and this machine are, and what it has to say |
//! | `options`, `open`, `reader`, `lent` | opening models |
//! | `image`, `prompt` | what goes in |
//! | `session`, `job` | calls, on the caller's thread and on one of their own |
//! | `result`, `mask`, `shapes` | what comes out |
//!
//! # Safety
//!
//! The functions take raw pointers and not references, because a reference that is misaligned is undefined behaviour
//! before anybody could look at it. All of them are `unsafe` for one reason, stated once here and at the top of the
//! header: the caller promises that a pointer which is neither NULL nor misaligned points to what its type says, alive
//! and not freed, for as long as the call takes. Each body turns its pointers into references in one `unsafe` block at
//! its beginning, and is safe Rust from there on. Handles hold their changing parts behind locks, so that only shared
//! references to them are ever made, whatever threads do.
#![allow(unsafe_code)]
// C's names, not Rust's.
#![allow(non_camel_case_types)]
// The section above is the safety section of every function; in the header it would stand there seventy times.
#![allow(clippy::missing_safety_doc)]

mod boundary;
mod devices;
mod error;
mod image;
mod job;
mod lent;
mod log;
mod mask;
mod open;
mod options;
mod plain;
mod prompt;
mod reader;
mod result;
mod session;
mod shapes;
mod status;
mod version;

pub use devices::*;
pub use error::*;
pub use image::*;
pub use job::*;
pub use lent::sam3_release_fn;
pub use log::*;
pub use mask::*;
pub use open::*;
pub use options::*;
pub use plain::*;
pub use prompt::*;
pub use reader::*;
pub use result::*;
pub use session::*;
pub use shapes::*;
pub use status::*;
pub use version::*;
