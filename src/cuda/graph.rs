//! CUDA graphs of batches: a chain of kernels that the driver takes with one call.
//!
//! They are put together node by node rather than captured from a stream, since the launches are known as data and a
//! capture would have to be kept apart from other threads' work on the stream.

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use cudarc::driver::{DriverError, result, sys};

use super::batch::{Batch, Launch, Line};
use super::driver::{Device, failed};
use crate::error::Result;

/// An instantiated graph and the launches it was made of.
pub struct Graph {
    graph: sys::CUgraph,
    exec: sys::CUgraphExec,
    nodes: Vec<sys::CUgraphNode>,
    launches: Vec<Launch>,
    /// What the nodes have for arguments now.
    arguments: Vec<Line>,
}

// SAFETY: the handles are the driver's, which may be used from any thread; the lock of `Batches` lets one use them at a
// time, and its context is made current before.
unsafe impl Send for Graph {}
// SAFETY: as above; nothing is done through a shared reference.
unsafe impl Sync for Graph {}

/// Calls `f` with the driver's form of a launch, whose pointers live no longer.
fn with_node<T>(launch: &Launch, arguments: &[Line], f: impl FnOnce(&sys::CUDA_KERNEL_NODE_PARAMS) -> T) -> T {
    let mut params = [arguments.as_ptr().cast_mut().cast::<c_void>()];
    let [x, y, z] = launch.grid;
    f(&sys::CUDA_KERNEL_NODE_PARAMS {
        func: launch.function,
        gridDimX: x,
        gridDimY: y,
        gridDimZ: z,
        blockDimX: launch.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: launch.shared,
        kernelParams: params.as_mut_ptr(),
        extra: null_mut(),
        kern: null_mut(),
        ctx: null_mut(),
    })
}

/// Enqueues the launches of a batch one by one.
pub fn enqueue(device: &Device, batch: &Batch) -> Result<()> {
    for (launch, arguments) in batch.each() {
        let mut params = [arguments.as_ptr().cast_mut().cast::<c_void>()];
        let [x, y, z] = launch.grid;
        let size = (launch.threads, 1, 1);
        // SAFETY: as in `Device::launch`, which noted this launch down with its arguments' bytes. The context is current.
        unsafe { result::launch_kernel(launch.function, (x, y, z), size, launch.shared, device.stream(), &mut params) }
            .map_err(|e| failed("launching a kernel", e))?;
    }
    Ok(())
}

impl Graph {
    /// A graph of a batch's launches, each behind the one before.
    pub fn new(device: &Device, batch: &Batch) -> Result<Self> {
        device.bind()?;
        let (launches, arguments) = (batch.launches.clone(), batch.arguments.clone());
        let mut this = Self { graph: null_mut(), exec: null_mut(), nodes: Vec::new(), launches, arguments };
        // From here on `drop` cleans up, also what is still null.
        this.build(batch).map_err(|e| failed("making a graph of kernels", e))?;
        Ok(this)
    }

    fn build(&mut self, batch: &Batch) -> Result<(), DriverError> {
        // SAFETY: the driver writes one handle; 0 is the only flag there is.
        unsafe { sys::cuGraphCreate(&mut self.graph, 0) }.result()?;
        for (launch, arguments) in batch.each() {
            let mut node = null_mut();
            let (before, count) = self.nodes.last().map_or((null(), 0), |last| (&raw const *last, 1));
            // SAFETY: graph and node before are of this graph; the driver copies the arguments, which are of the kernel's
            // type since `Device::launch` noted them down.
            with_node(launch, arguments, |params| unsafe {
                sys::cuGraphAddKernelNode_v2(&mut node, self.graph, before, count, params)
            })
            .result()?;
            self.nodes.push(node);
        }
        // SAFETY: the graph is whole.
        unsafe { sys::cuGraphInstantiateWithFlags(&mut self.exec, self.graph, 0) }.result()
    }

    /// Whether it has the kernels and the grids of a batch.
    pub fn is_of(&self, batch: &Batch) -> bool {
        self.launches == batch.launches
    }

    /// Whether its nodes have the arguments of a batch that it [is of](Self::is_of).
    pub fn has_arguments_of(&self, batch: &Batch) -> bool {
        self.arguments == batch.arguments
    }

    /// Enqueues it with the arguments of a batch that it [is of](Self::is_of).
    pub fn launch(&mut self, device: &Device, batch: &Batch) -> Result<()> {
        let mut at = 0;
        for ((launch, arguments), &node) in batch.each().zip(&self.nodes) {
            let own = &mut self.arguments[at..at + launch.lines];
            at += launch.lines;
            if own == arguments {
                continue;
            }
            // SAFETY: the node is of the graph that `exec` was made of; otherwise as in `build`. Earlier launches of the graph
            // keep the arguments they were enqueued with.
            let set = with_node(launch, arguments, |params| unsafe {
                sys::cuGraphExecKernelNodeSetParams_v2(self.exec, node, params)
            });
            set.result().map_err(|e| failed("arguments of a graph of kernels", e))?;
            own.copy_from_slice(arguments);
        }
        // SAFETY: both are of this device, whose context is current.
        unsafe { result::graph::launch(self.exec, device.stream()) }
            .map_err(|e| failed("launching a graph of kernels", e))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the handles were made by `build`, or are null and skipped, and are not used again; the context is current
        // wherever graphs are dropped.
        unsafe {
            if !self.exec.is_null() {
                let _ = result::graph::exec_destroy(self.exec);
            }
            if !self.graph.is_null() {
                let _ = result::graph::destroy(self.graph);
            }
        }
    }
}
