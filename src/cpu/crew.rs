//! Threads that do one caller's work at a time, the caller among them.
//!
//! The operations of a model follow each other within microseconds, and each is a loop over tasks. Handing such a loop
//! to sleeping threads and sleeping until they are done costs two wake-ups, which is more than many of these loops
//! take. Here the caller works as well, the others watch for the next loop for a moment before they sleep, and a loop
//! whose tasks are all taken does not wait for those who came too late.
//!
//! ```text
//! caller  ── open ── work ──────────── close ── wait for those inside ──▶
//! thread    watch ──── enter ── work ── leave ── watch … sleep
//! ```
//!
//! Not [rayon](https://docs.rs/rayon), which the benches' opponents run on, for three reasons. Who calls into a pool of
//! rayon's from outside hands over and sleeps: on models of a millisecond an operation that was half of the time
//! (`benches/LOG.md`). Its threads end some time after their pool is dropped, and nothing waits for them, while a host
//! may unload this library as soon as the last model is closed. And a loop there allocates, which a warm call must not.
//!
//! The one `unsafe` is that threads of unlimited life borrow work of limited life. `gate` makes it right: nobody reads
//! the pointer before having entered an open gate, and the caller does not return before the gate is closed and
//! everybody has left.

use std::any::Any;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread watches before it sleeps: several wake-ups of 5 to 50 µs, which is what sleeping would cost, and
/// longer than the serial pieces between operations.
const WATCH: Duration = Duration::from_micros(100);

/// The gate is open: whoever comes may enter.
const OPEN: usize = 1 << (usize::BITS - 1);
/// The caller sleeps until the last has left.
const AWAITED: usize = 1 << (usize::BITS - 2);
/// The lower bits count who is inside.
const INSIDE: usize = AWAITED - 1;

/// A caller's work.
struct Work<'a> {
    run: &'a (dyn Fn() + Sync),
}

/// What caller and threads share.
struct Shared {
    /// [`OPEN`], [`AWAITED`], and how many threads are inside.
    gate: AtomicUsize,
    /// The work, to be read by who is inside; dangling otherwise.
    work: AtomicPtr<Work<'static>>,
    /// Counts openings.
    round: AtomicUsize,
    /// Threads that sleep, or are about to.
    sleepers: AtomicUsize,
    stop: AtomicBool,
    /// Guards nothing but the order of going to sleep and being woken.
    bed: Mutex<()>,
    /// A new round, or the end.
    wake: Condvar,
    /// The last has left.
    left: Condvar,
}

/// The threads. They end with it.
pub struct Crew {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    /// Held by the caller that the threads work for.
    turn: Mutex<()>,
}

impl Crew {
    /// `threads` at work in all, the caller included.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            gate: AtomicUsize::new(0),
            work: AtomicPtr::default(),
            round: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            bed: Mutex::new(()),
            wake: Condvar::new(),
            left: Condvar::new(),
        });
        // Made first, so that those already started end if one cannot be.
        let mut crew = Self { shared, handles: Vec::new(), turn: Mutex::new(()) };
        for i in 1..threads {
            let shared = Arc::clone(&crew.shared);
            let builder = std::thread::Builder::new().name(format!("sam3-cpu-{i}"));
            crew.handles.push(builder.spawn(move || shared.serve())?);
        }
        Ok(crew)
    }

    /// How many threads work, the caller included.
    pub fn threads(&self) -> usize {
        self.handles.len() + 1
    }

    /// Runs `work` on the caller and on some of the threads, all at once, until all have returned. Threads are woken
    /// until `helpers` are awake. One may come late or not at all: `work` takes its share from what the others leave.
    /// While the threads work for another caller, or for this one further up its stack, the caller works alone.
    ///
    /// # Panics
    /// If `work` does, once everybody has returned.
    pub fn run(&self, helpers: usize, work: &(dyn Fn() + Sync)) {
        let turn = match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            // A caller that panicked left nothing behind.
            Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if turn.is_none() || helpers == 0 || self.handles.is_empty() {
            return work();
        }
        let panic: Mutex<Option<Box<dyn Any + Send>>> = Mutex::new(None);
        let run = || {
            if let Err(cause) = catch_unwind(AssertUnwindSafe(work)) {
                lock(&panic).get_or_insert(cause);
            }
        };
        let awake = self.handles.len().saturating_sub(self.shared.sleepers.load(SeqCst));
        self.shared.open(&Work { run: &run }, helpers.saturating_sub(awake));
        drop(turn);
        let cause = lock(&panic).take();
        if let Some(cause) = cause {
            resume_unwind(cause);
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.round.fetch_add(1, SeqCst);
        drop(lock(&self.shared.bed));
        self.shared.wake.notify_all();
        for handle in self.handles.drain(..) {
            // Work that panicked told its caller; the thread itself has nothing that could.
            let _ = handle.join();
        }
    }
}

impl Shared {
    /// Lets threads into `work`, which does not panic, waking up to `wake` of those that sleep; does it itself as well,
    /// and returns when nobody is inside any more.
    fn open(&self, work: &Work<'_>, wake: usize) {
        self.work.store(std::ptr::from_ref(work).cast_mut().cast(), SeqCst);
        self.gate.store(OPEN, SeqCst);
        self.round.fetch_add(1, SeqCst);
        // Whoever falls asleep from here on sees the new round first.
        if wake > 0 && self.sleepers.load(SeqCst) > 0 {
            drop(lock(&self.bed));
            (0..wake).for_each(|_| self.wake.notify_one());
        }
        (work.run)();
        self.gate.fetch_and(!OPEN, SeqCst);
        let watch = Instant::now();
        while self.gate.load(SeqCst) & INSIDE > 0 {
            spin_loop();
            if watch.elapsed() > WATCH && self.gate.fetch_or(AWAITED, SeqCst) & INSIDE > 0 {
                let mut bed = lock(&self.bed);
                while self.gate.load(SeqCst) & INSIDE > 0 {
                    bed = self.left.wait(bed).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn serve(&self) {
        let mut seen = 0;
        while let Some(round) = self.next(seen) {
            seen = round;
            if self.enter() {
                // SAFETY: the pointer was stored before the gate was opened, and this thread entered the open gate.
                // `open` keeps what it points to borrowed until this thread leaves, for it waits for that.
                let work = unsafe { &*self.work.load(SeqCst) };
                // Does not panic: `Crew::run` catches what its work throws.
                (work.run)();
                self.leave();
            }
        }
    }

    /// Waits for a round after `seen`; `None` at the end.
    fn next(&self, seen: usize) -> Option<usize> {
        let watch = Instant::now();
        loop {
            // The clock takes longer to ask than the round.
            for _ in 0..64 {
                let round = self.round.load(SeqCst);
                if round != seen {
                    return (!self.stop.load(SeqCst)).then_some(round);
                }
                spin_loop();
            }
            if watch.elapsed() > WATCH {
                break;
            }
        }
        let mut bed = lock(&self.bed);
        self.sleepers.fetch_add(1, SeqCst);
        while self.round.load(SeqCst) == seen {
            bed = self.wake.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, SeqCst);
        drop(bed);
        (!self.stop.load(SeqCst)).then(|| self.round.load(SeqCst))
    }

    /// Whether the gate was open, in which case this thread is now inside.
    fn enter(&self) -> bool {
        self.gate.fetch_update(SeqCst, SeqCst, |gate| (gate & OPEN != 0).then_some(gate + 1)).is_ok()
    }

    fn leave(&self) {
        let before = self.gate.fetch_sub(1, SeqCst);
        if before & AWAITED != 0 && before & INSIDE == 1 {
            drop(lock(&self.bed));
            self.left.notify_one();
        }
    }
}

/// Nothing that these locks guard can be left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Work that takes numbers until there are none; returns how often each was taken.
    fn count(crew: &Crew, tasks: usize) -> Vec<usize> {
        let taken: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        let next = AtomicUsize::new(0);
        crew.run(crew.threads(), &|| {
            while let Some(task) = taken.get(next.fetch_add(1, SeqCst)) {
                task.fetch_add(1, SeqCst);
            }
        });
        taken.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn every_task_is_done_once_however_short_the_rounds() {
        for threads in [1, 2, 3, 7] {
            let crew = Crew::new(threads).unwrap();
            assert_eq!(crew.threads(), threads);
            for round in 0..500 {
                assert!(count(&crew, round % 5).iter().all(|&n| n == 1), "{threads} threads, round {round}");
                if round % 100 == 0 {
                    // Long enough for all to fall asleep.
                    std::thread::sleep(3 * WATCH);
                }
            }
        }
    }

    #[test]
    fn threads_help_and_are_waited_for() {
        let crew = Crew::new(3).unwrap();
        let (inside, names) = (AtomicUsize::new(0), Mutex::new(HashSet::new()));
        // Nobody goes before all three are there, the last of them two naps later.
        crew.run(2, &|| {
            let place = inside.fetch_add(1, SeqCst);
            while inside.load(SeqCst) < 3 {
                std::thread::yield_now();
            }
            std::thread::sleep(place as u32 * 3 * WATCH);
            lock(&names).insert(std::thread::current().name().map(str::to_owned));
        });
        let names = lock(&names);
        assert!(names.len() == 3 && names.contains(&Some("sam3-cpu-1".into())), "{names:?}");
    }

    #[test]
    fn other_callers_work_alone() {
        let crew = Crew::new(2).unwrap();
        let outer = AtomicUsize::new(0);
        crew.run(1, &|| {
            outer.fetch_add(1, SeqCst);
            // From inside, and from a thread of another caller.
            assert_eq!(count(&crew, 10), [1; 10]);
            std::thread::scope(|s| assert_eq!(s.spawn(|| count(&crew, 10)).join().unwrap(), [1; 10]));
        });
        assert!((1..=2).contains(&outer.into_inner()));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_no_further() {
        let crew = Crew::new(3).unwrap();
        for _ in 0..10 {
            let cause = catch_unwind(AssertUnwindSafe(|| crew.run(2, &|| resume_unwind(Box::new(7))))).unwrap_err();
            assert_eq!(cause.downcast_ref(), Some(&7));
            assert_eq!(count(&crew, 10), [1; 10]);
        }
    }

    #[test]
    fn threads_end_with_the_crew() {
        let crew = Crew::new(4).unwrap();
        count(&crew, 100);
        let shared = Arc::downgrade(&crew.shared);
        drop(crew);
        assert_eq!(shared.strong_count(), 0);
    }
}
