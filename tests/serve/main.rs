//! `sam3 serve` over real sockets, on the tiny checkpoint.

mod clients;
mod harness;
mod images;
mod limits;
mod queue;
mod surface;
