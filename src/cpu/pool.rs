//! The threads of a back end, and the scratch memory their kernels share.

use std::num::NonZero;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::crew::Crew;
use super::memory::Memory;
use crate::error::{Error, ErrorKind, Result};

/// Threads owned by a back end, joined when it is dropped: a host that unloads the library must find none left.
pub(crate) struct Pool {
    crew: Crew,
    /// Callers in the middle of a stage.
    callers: AtomicUsize,
    scratch: Mutex<Vec<Memory>>,
}

impl Pool {
    /// `threads` of them, the caller of an operation counting as one; as many as there are physical cores by default.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        let threads = threads.unwrap_or_else(physical_cores);
        if threads == 0 {
            return Err(Error::invalid("threads: expected at least 1, found 0"));
        }
        let crew = Crew::new(threads).map_err(|e| {
            Error::new(ErrorKind::OutOfMemory, format!("expected to start {threads} threads")).with_source(e)
        })?;
        Ok(Self { crew, callers: AtomicUsize::new(0), scratch: Mutex::default() })
    }

    /// How many threads work on an operation.
    pub fn threads(&self) -> usize {
        self.crew.threads()
    }

    /// Counts the caller as one at work on a stage, until the guard is dropped.
    ///
    /// Where callers are as many as threads, all of them work alone: the crew would only take turns with them on the same
    /// cores, and what a caller loses to waiting for others' tasks is the throughput of a server at saturation.
    pub fn enter(&self) -> Entered<'_> {
        self.callers.fetch_add(1, Ordering::Relaxed);
        Entered(&self.callers)
    }

    /// Does `work` with each item, on all threads. Items are handed out one by one in their order, so that who is
    /// faster does more.
    pub fn for_each<T: Send>(&self, items: impl ExactSizeIterator<Item = T> + Send, work: impl Fn(T) + Sync) {
        self.for_each_with(0, items, |_, item| work(item));
    }

    /// As [`Pool::for_each`], with `len` unspecified elements of scratch for each thread.
    pub fn for_each_with<T: Send>(
        &self,
        len: usize,
        items: impl ExactSizeIterator<Item = T> + Send,
        work: impl Fn(&mut [f32], T) + Sync,
    ) {
        let crowd = self.callers.load(Ordering::Relaxed);
        let hands = if crowd > 1 && crowd >= self.threads() { 1 } else { self.threads().min(items.len()) };
        // The caller takes memory for all, so that what is taken does not depend on who comes first.
        let mut memory = self.scratch(hands * len);
        if hands <= 1 {
            return items.for_each(|item| work(&mut memory, item));
        }
        let shares = Mutex::new(memory.chunks_exact_mut(len.max(1)));
        let items = Mutex::new(items);
        self.crew.run(hands - 1, &|| {
            let share = if len == 0 { Some(&mut [][..]) } else { next(&shares) };
            let Some(share) = share else { return };
            while let Some(item) = next(&items) {
                work(share, item);
            }
        });
    }

    /// Memory of `len` unspecified elements until the lease is dropped. Leases are few and recur with the same sizes
    /// at every call of an operation, so the memory of earlier ones serves again, without page faults.
    pub fn scratch(&self, len: usize) -> Lease<'_> {
        if len == 0 {
            return Lease { memory: Memory::default(), len, pool: self };
        }
        let mut free = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        // The tightest fit; else let the largest grow.
        let fit = (0..free.len()).filter(|&i| free[i].len() >= len).min_by_key(|&i| free[i].len());
        let pick = fit.or_else(|| (0..free.len()).max_by_key(|&i| free[i].len()));
        let mut memory = pick.map(|i| free.swap_remove(i)).unwrap_or_default();
        drop(free);
        if memory.len() < len {
            // Freed first. The new one comes zeroed from the system, which costs nothing before it is used.
            drop(memory);
            memory = Memory::zeroed(len).unwrap_or_else(|e| panic!("scratch: {e}"));
        }
        Lease { memory, len, pool: self }
    }
}

/// A caller at work, see [`Pool::enter`].
pub(crate) struct Entered<'a>(&'a AtomicUsize);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The next of what several threads share.
fn next<T>(items: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    items.lock().unwrap_or_else(PoisonError::into_inner).next()
}

/// Scratch memory on loan; goes back on drop.
pub(crate) struct Lease<'a> {
    memory: Memory,
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
        if memory.is_empty() {
            return;
        }
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
    fn as_many_callers_as_threads_work_alone() {
        let pool = Pool::new(Some(2)).unwrap();
        // Whether somebody else than the caller had an item: items last until both threads have had the time to come.
        let shared = || {
            let caller = std::thread::current().id();
            let others = AtomicUsize::new(0);
            pool.for_each(0..64, |_| {
                std::thread::sleep(std::time::Duration::from_millis(1));
                others.fetch_add(usize::from(std::thread::current().id() != caller), Ordering::Relaxed);
            });
            others.into_inner() > 0
        };
        assert!(shared());
        let first = pool.enter();
        assert!(shared());
        let second = pool.enter();
        assert!(!shared());
        drop(second);
        assert!(shared());
        drop(first);
    }

    #[test]
    fn every_item_is_worked_on_with_scratch_of_its_own() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(Some(threads)).unwrap();
            assert_eq!(pool.threads(), threads);
            for (count, len) in [(0, 3), (1, 3), (2, 0), (1000, 7)] {
                let mut out = vec![0.0; count];
                pool.for_each_with(len, out.iter_mut().enumerate(), |scratch, (i, out)| {
                    assert_eq!(scratch.len(), len);
                    scratch.fill(i as f32);
                    std::hint::black_box(&mut *scratch);
                    *out = scratch.iter().sum::<f32>() + 1.0;
                });
                assert!((0..count).all(|i| out[i] == (i * len) as f32 + 1.0), "{threads} threads, {count} of {len}");
            }
        }
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
