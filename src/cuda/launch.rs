//! The only launches.

use std::ffi::c_void;

use cudarc::driver::result;

use super::arguments::Arguments;
use super::batch::Launch;
use super::driver::{Device, failed};
use super::functions::{Function, Functions};
use crate::error::Result;

// SAFETY: the handles name code of a module that `CudaOps` keeps loaded; the driver may use them from any thread.
unsafe impl Send for Functions {}
// SAFETY: as above; nothing behind a handle changes.
unsafe impl Sync for Functions {}
// SAFETY: a launch holds such a handle and numbers.
unsafe impl Send for Launch {}
// SAFETY: as above.
unsafe impl Sync for Launch {}

/// Blocks of a launch.
pub type Grid = [usize; 3];

impl Device {
    /// Enqueues a kernel. Nothing happens for an empty grid.
    ///
    /// Every pointer in `args` must come from an activation or a matrix whose extent was checked for the sizes in `args`
    /// (`Act::rows`, `Act::output`, `Mat`), or be 0 where the kernel takes null.
    pub(super) fn launch<A: Arguments>(&self, f: &Function<A>, grid: Grid, args: &A) -> Result<()> {
        self.launch_with(f, grid, f.shared_bytes, args)
    }

    /// As [`Self::launch`], with shared memory of the call's own size.
    pub(super) fn launch_with<A: Arguments>(&self, f: &Function<A>, grid: Grid, shared: u32, args: &A) -> Result<()> {
        if grid.contains(&0) {
            return Ok(());
        }
        let [x, y, z] = grid.map(|n| u32::try_from(n).expect("a grid's side fits 32 bits"));
        let launch = Launch { function: f.handle, grid: [x, y, z], threads: f.threads, shared, lines: 0 };
        if self.batches().hold(launch, bytemuck::bytes_of(args)) {
            return Ok(());
        }
        self.bind()?;
        let mut params = [(&raw const *args).cast_mut().cast::<c_void>()];
        // SAFETY: `Function<A>` ties the kernel to the type of its one argument, which the driver copies before it returns.
        // The argument's pointers name memory that the callers in this module's parent checked; it is given back on the
        // same stream, behind this launch.
        unsafe { result::launch_kernel(f.handle, (x, y, z), (f.threads, 1, 1), shared, self.stream(), &mut params) }
            .map_err(|e| failed("launching a kernel", e))
    }
}
