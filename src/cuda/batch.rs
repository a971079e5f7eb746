//! Launches that are held back, so that a stage reaches the driver as one graph.
//!
//! While a thread has a batch open, its launches are written down instead of enqueued. When the stage ends, or when it
//! copies to or from the device, what was written down goes to the driver: the first time as single launches, from the
//! second time on as a CUDA graph, made of the same launches and kept. A later batch of the same kernels on the same
//! grids only tells the kept graph where arguments differ, which are mostly none: buffers keep their places, or change
//! them with their neighbour from call to call, for which two graphs are kept. Nothing is assumed of what a stage does: a
//! batch that differs from all kept ones is simply another one.

use std::sync::Arc;
use std::thread::{self, ThreadId};

use bytemuck::{Pod, Zeroable};
use cudarc::driver::sys;

use super::arena::Block;
use super::driver::Device;
use super::graph::{Graph, enqueue};
use crate::error::Result;

/// Fewer launches than this are no faster as a graph.
const FEWEST: usize = 4;

/// Graphs that are kept, the latest used. A model has some twenty stages and parts of stages; those that read phrases come
/// in as many kinds as phrases have lengths.
const MOST_GRAPHS: usize = 128;

/// Graphs of the same kernels on the same grids with other arguments.
const MOST_ALIKE: usize = 2;

/// Batches that are remembered to have been there once.
const MOST_SEEN: usize = 512;

/// Bytes of arguments, aligned for every structure that kernels take.
#[derive(Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Line([u8; 64]);

/// A launch without its arguments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Launch {
    pub function: sys::CUfunction,
    pub grid: [u32; 3],
    pub threads: u32,
    pub shared: u32,
    /// Lines of its arguments.
    pub lines: usize,
}

/// Launches in their order, with all their arguments.
#[derive(Default)]
pub struct Batch {
    pub launches: Vec<Launch>,
    pub arguments: Vec<Line>,
    /// Blocks given back meanwhile.
    given: Vec<Block>,
}

impl Batch {
    /// Notes a launch down; `arguments` are the bytes of its one argument.
    pub fn push(&mut self, launch: Launch, arguments: &[u8]) {
        let at = self.arguments.len();
        let lines = arguments.len().div_ceil(size_of::<Line>());
        self.arguments.resize(at + lines, Line::zeroed());
        bytemuck::cast_slice_mut(&mut self.arguments[at..])[..arguments.len()].copy_from_slice(arguments);
        self.launches.push(Launch { lines, ..launch });
    }

    /// Each launch with its arguments.
    pub fn each(&self) -> impl Iterator<Item = (&Launch, &[Line])> {
        let mut at = 0;
        self.launches.iter().map(move |launch| {
            at += launch.lines;
            (launch, &self.arguments[at - launch.lines..at])
        })
    }

    /// FNV-1a of all but the arguments.
    fn kind(&self) -> u64 {
        self.launches.iter().fold(0xcbf2_9ce4_8422_2325, |h, launch| {
            let [x, y, z] = launch.grid.map(u64::from);
            let words = [launch.function as usize as u64, x, y, z, launch.shared.into()];
            words.iter().fold(h, |h, word| (h ^ word).wrapping_mul(0x0100_0000_01b3))
        })
    }
}

/// The batches of a device.
#[derive(Default)]
pub struct Batches {
    open: Vec<(ThreadId, Batch)>,
    /// Closed ones, whose room is used again.
    spare: Vec<Batch>,
    /// The one used last at the end.
    graphs: Vec<(u64, Graph)>,
    seen: Vec<u64>,
}

impl Batches {
    /// The batch of the calling thread.
    fn own(&mut self) -> Option<&mut Batch> {
        let me = thread::current().id();
        self.open.iter_mut().find(|(owner, _)| *owner == me).map(|(_, batch)| batch)
    }

    /// Takes a launch of the calling thread, if it has a batch open.
    pub(super) fn hold(&mut self, launch: Launch, arguments: &[u8]) -> bool {
        self.own().map(|batch| batch.push(launch, arguments)).is_some()
    }

    /// Takes a block that the calling thread gives back, if it has a batch open.
    pub(super) fn keep(&mut self, block: Block) -> bool {
        self.own().map(|batch| batch.given.push(block)).is_some()
    }

    /// Opens a batch for the calling thread; false if it has one.
    fn begin(&mut self) -> bool {
        if self.own().is_some() {
            return false;
        }
        let batch = self.spare.pop().unwrap_or_default();
        self.open.push((thread::current().id(), batch));
        true
    }

    /// Closes the calling thread's batch, forgets what it still held back, and returns the blocks given back meanwhile.
    fn end(&mut self) -> Vec<Block> {
        let me = thread::current().id();
        let Some(at) = self.open.iter().position(|(owner, _)| *owner == me) else { return Vec::new() };
        let (_, mut batch) = self.open.swap_remove(at);
        batch.launches.clear();
        batch.arguments.clear();
        let given = std::mem::take(&mut batch.given);
        self.spare.push(batch);
        given
    }

    /// Hands what the calling thread held back to the driver.
    fn hand_over(&mut self, device: &Device) -> Result<()> {
        let me = thread::current().id();
        let Some((_, batch)) = self.open.iter_mut().find(|(owner, _)| *owner == me) else { return Ok(()) };
        if batch.launches.is_empty() {
            return Ok(());
        }
        device.bind()?;
        let done = submit(device, batch, &mut self.graphs, &mut self.seen);
        batch.launches.clear();
        batch.arguments.clear();
        done
    }

    /// Destroys the graphs; what they do must have ended.
    pub(super) fn clear(&mut self) {
        self.graphs.clear();
    }
}

/// Enqueues a batch, as a graph if it was there before.
fn submit(device: &Device, batch: &Batch, graphs: &mut Vec<(u64, Graph)>, seen: &mut Vec<u64>) -> Result<()> {
    if batch.launches.len() < FEWEST {
        return enqueue(device, batch);
    }
    let kind = batch.kind();
    let alike = |(k, graph): &(u64, Graph)| *k == kind && graph.is_of(batch);
    let same = graphs.iter().rposition(|g| alike(g) && g.1.has_arguments_of(batch));
    let full = || graphs.iter().filter(|g| alike(g)).count() == MOST_ALIKE;
    // Of several that differ, the one used longest ago.
    if let Some(at) = same.or_else(|| graphs.iter().position(alike).filter(|_| full())) {
        let (_, mut graph) = graphs.remove(at);
        let done = graph.launch(device, batch);
        graphs.push((kind, graph));
        return done;
    }
    if !seen.contains(&kind) {
        if seen.len() == MOST_SEEN {
            seen.remove(0);
        }
        seen.push(kind);
        return enqueue(device, batch);
    }
    // Without room for a graph there is still room for launches.
    let Ok(mut graph) = Graph::new(device, batch) else { return enqueue(device, batch) };
    if graphs.len() == MOST_GRAPHS {
        // It may be running.
        device.synchronize()?;
        graphs.remove(0);
    }
    let done = graph.launch(device, batch);
    graphs.push((kind, graph));
    done
}

impl Device {
    /// Runs `work`, whose launches on this thread reach the driver together. Nothing of what is still held back happens
    /// if `work` fails.
    pub(super) fn together<T>(self: &Arc<Self>, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.batches().begin() {
            return work();
        }
        let end = End(self);
        let result = work()?;
        self.hand_over()?;
        drop(end);
        Ok(result)
    }

    /// Hands what this thread's batch holds back to the driver; the batch stays open.
    pub(super) fn hand_over(&self) -> Result<()> {
        self.batches().hand_over(self)
    }
}

/// Ends the calling thread's batch, whatever happens.
struct End<'a>(&'a Device);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let given = self.0.batches().end();
        if self.0.bind().is_ok() {
            let mut kept = self.0.kept();
            given.into_iter().for_each(|block| kept.give(block, self.0.stream()));
        }
    }
}
