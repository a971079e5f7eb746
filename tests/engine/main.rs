//! The library as its users see it: models, sessions and embeddings, shared, cancelled, watched, and refused.

mod calls;
mod checkpoints;
mod harness;
mod hooks;
