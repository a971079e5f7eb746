//! The threads of a back end, and the scratch memory their kernels share.

use std::num::NonZero;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::error::{Error, ErrorKind, Result};

/// Threads owned by a back end, joined when it is dropped: a host that unloads the library must find none left.
pub(crate) struct Pool {
    /// `None` only while being dropped.
    rayon: Option<rayon::ThreadPool>,
    handles: Arc<Mutex<Vec<JoinHandle<()>>>>,
    scratch: Mutex<Vec<Vec<f32>>>,
}

impl Pool {
    /// `threads` of them, as many as there are physical cores by default.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        let threads = threads.unwrap_or_else(physical_cores);
        if threads == 0 {
            return Err(Error::invalid("threads: expected at least 1, found 0"));
        }
        let handles = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&handles);
        let rayon = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .spawn_handler(move |thread| {
                let name = format!("sam3-cpu-{}", thread.index());
                let handle = std::thread::Builder::new().name(name).spawn(|| thread.run())?;
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
                Ok(())
            })
            .build()
            .map_err(|e| {
                Error::new(ErrorKind::OutOfMemory, format!("expected to start {threads} threads")).with_source(e)
            })?;
        Ok(Self { rayon: Some(rayon), handles, scratch: Mutex::default() })
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.rayon.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Runs `work` on the pool; parallel iterators inside use its threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.rayon.as_ref().expect("the pool lives as long as its back end").install(work)
    }

    /// Memory of `len` unspecified elements until the lease is dropped. Leases are few and recur with the same sizes
    /// at every call of an operation, so the memory of earlier ones serves again, without page faults.
    pub fn scratch(&self, len: usize) -> Lease<'_> {
        let mut free = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        // The tightest fit; else let the largest grow.
        let fit = (0..free.len()).filter(|&i| free[i].len() >= len).min_by_key(|&i| free[i].len());
        let pick = fit.or_else(|| (0..free.len()).max_by_key(|&i| free[i].len()));
        let mut memory = pick.map(|i| free.swap_remove(i)).unwrap_or_default();
        drop(free);
        if memory.len() < len {
            memory.clear();
            memory.reserve_exact(len);
            memory.resize(len, 0.0);
        }
        Lease { memory, len, pool: self }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Tells the threads to finish; does not wait.
        self.rayon = None;
        let me = std::thread::current().id();
        for handle in self.handles.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // The last owner may be work on a thread of this very pool, which cannot wait for itself.
            if handle.thread().id() != me {
                // A panic was already handed to the caller of `install`.
                let _ = handle.join();
            }
        }
    }
}

/// Scratch memory on loan; goes back on drop.
pub(crate) struct Lease<'a> {
    memory: Vec<f32>,
    len: usize,
    pool: &'a Pool,
}

impl Deref for Lease<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[..self.len]
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        self.pool.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }
}

/// Cores, counting the hyper-threads of one as one: two threads on a core share its FMA units and its L1, so that
/// a second one costs a dense kernel more than it brings. No more than this process may use.
pub fn physical_cores() -> usize {
    let logical = std::thread::available_parallelism().map_or(1, NonZero::get);
    logical.min(sysfs_cores().unwrap_or(logical))
}

/// Cores by Linux's account: the distinct sets of hyper-thread siblings. `None` elsewhere.
fn sysfs_cores() -> Option<usize> {
    let mut siblings = std::collections::HashSet::new();
    for entry in std::fs::read_dir("/sys/devices/system/cpu").ok()?.flatten() {
        if let Ok(set) = std::fs::read_to_string(entry.path().join("topology/thread_siblings_list")) {
            siblings.insert(set);
        }
    }
    (!siblings.is_empty()).then_some(siblings.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_on_its_own_threads_and_joins_them() {
        let pool = Pool::new(Some(3)).unwrap();
        assert_eq!(pool.threads(), 3);
        let name = pool.install(|| std::thread::current().name().map(str::to_owned)).unwrap();
        assert!(name.starts_with("sam3-cpu-"), "{name}");
        let handles = Arc::downgrade(&pool.handles);
        drop(pool);
        // The start handler's clone went with the builder, the pool's with the pool.
        assert_eq!(handles.strong_count(), 0);
        assert!(Pool::new(Some(0)).is_err());
    }

    #[test]
    fn scratch_is_used_again() {
        let pool = Pool::new(Some(1)).unwrap();
        let first = pool.scratch(1000).as_ptr();
        assert_eq!(pool.scratch(10).len(), 10);
        assert_eq!(pool.scratch(1000).as_ptr(), first);
        let (a, b) = (pool.scratch(10), pool.scratch(2000));
        assert_eq!((a.len(), b.len()), (10, 2000));
    }
}
