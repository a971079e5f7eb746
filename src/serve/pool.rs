//! Sessions on threads of their own.
//!
//! The model works for seconds; the async runtime must not. So each session belongs to one thread, which takes jobs from
//! one queue, in order. How many jobs there may be is not decided here but at the door: a request is admitted to the
//! server ([`super::app::App::admit`]) before it may bring any.
//!
//! A job runs under a [`Ticket`], through which it is stopped at its next step: because its caller left, or asked for
//! it, or because its deadline passed. A job that panics takes its session with it and nothing else: the thread goes on
//! with a new one.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::{Error, Model, Session};

/// Stages and the time each took.
pub type Times = Vec<(&'static str, Duration)>;

/// What stops a job.
#[derive(Debug)]
pub struct Ticket {
    stopped: AtomicBool,
    deadline: Instant,
}

impl Ticket {
    /// A ticket that runs out at `deadline`.
    pub fn until(deadline: Instant) -> Arc<Self> {
        Arc::new(Self { stopped: AtomicBool::new(false), deadline })
    }

    /// Stops the job at its next step, or before it starts.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether somebody stopped it, or its time is over.
    pub fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }
}

/// Why a job has no answer.
#[derive(Debug)]
pub enum Failure {
    /// The engine said no.
    Engine(Error),
    /// The job panicked; its session is gone.
    Panicked,
    /// Its ticket was over before it began, or the pool has closed.
    Stopped,
}

type Job = Box<dyn FnOnce(&mut Session) + Send>;

struct Waiting {
    ticket: Arc<Ticket>,
    job: Job,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Waiting>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    busy: AtomicUsize,
    panics: AtomicU64,
    done: AtomicU64,
    /// Sum of all jobs' times, for the estimate of how long a full queue lasts.
    micros: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code that can panic runs under this lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Waiting> {
        let mut queue = self.lock();
        loop {
            if let Some(next) = queue.jobs.pop_front() {
                return Some(next);
            }
            if queue.closed {
                return None;
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The threads and their queue.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    sessions: usize,
}

/// What a pool is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Sessions at work.
    pub busy: usize,
    /// Jobs that wait for one.
    pub waiting: usize,
    /// Jobs done since the start.
    pub done: u64,
    /// Panics since the start.
    pub panics: u64,
    /// Mean time of a job.
    pub mean: Duration,
}

impl Pool {
    /// Starts `sessions` threads on `model`.
    ///
    /// Fails if the system has no more threads to give.
    pub fn start(model: &Model, sessions: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            ready: Condvar::new(),
            busy: AtomicUsize::new(0),
            panics: AtomicU64::new(0),
            done: AtomicU64::new(0),
            micros: AtomicU64::new(0),
        });
        let pool = Self { shared: shared.clone(), threads: Mutex::default(), sessions };
        for i in 0..sessions {
            let (model, shared) = (model.clone(), shared.clone());
            let thread =
                std::thread::Builder::new().name(format!("session-{i}")).spawn(move || work(&model, &shared))?;
            pool.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(pool)
    }

    /// Threads, and so jobs at a time.
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    /// Runs `f` on a session as soon as one is free, and says how long its stages took.
    pub async fn run<T: Send + 'static>(
        &self,
        ticket: &Arc<Ticket>,
        f: impl FnOnce(&mut Session) -> crate::Result<T> + Send + 'static,
    ) -> Result<(T, Times), Failure> {
        let (send, receive) = oneshot::channel();
        let began = Arc::new(AtomicBool::new(false));
        let begun = began.clone();
        let job: Job = Box::new(move |session| {
            begun.store(true, Ordering::Relaxed);
            let _ = session.take_timings();
            let result = f(session);
            let times: Times = session.take_timings().iter().collect();
            // A receiver that is gone has stopped the ticket, too; the result is nobody's.
            let _ = send.send(result.map(|value| (value, times)));
        });
        {
            let mut queue = self.shared.lock();
            if queue.closed {
                return Err(Failure::Stopped);
            }
            queue.jobs.push_back(Waiting { ticket: ticket.clone(), job });
        }
        self.shared.ready.notify_one();
        match receive.await {
            Ok(result) => result.map_err(Failure::Engine),
            // The sender went away unused: the job never began, or ended in a panic.
            Err(_) if began.load(Ordering::Relaxed) => Err(Failure::Panicked),
            Err(_) => Err(Failure::Stopped),
        }
    }

    /// What the pool is doing.
    pub fn load(&self) -> Load {
        let done = self.shared.done.load(Ordering::Relaxed);
        let micros = self.shared.micros.load(Ordering::Relaxed);
        Load {
            busy: self.shared.busy.load(Ordering::Relaxed),
            waiting: self.shared.lock().jobs.len(),
            done,
            panics: self.shared.panics.load(Ordering::Relaxed),
            mean: Duration::from_micros(micros.checked_div(done).unwrap_or(0)),
        }
    }

    /// Ends the threads after the jobs they have begun; those that wait are dropped.
    pub fn close(&self) {
        let dropped = {
            let mut queue = self.shared.lock();
            queue.closed = true;
            std::mem::take(&mut queue.jobs)
        };
        drop(dropped);
        self.shared.ready.notify_all();
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Threads catch the panics of their jobs, and have none of their own.
            let _ = thread.join();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

fn work(model: &Model, shared: &Shared) {
    let mut session = model.session();
    while let Some(Waiting { ticket, job }) = shared.next() {
        if ticket.is_over() {
            continue;
        }
        shared.busy.fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        session.on_progress(move |_| !ticket.is_over());
        if catch_unwind(AssertUnwindSafe(|| job(&mut session))).is_err() {
            shared.panics.fetch_add(1, Ordering::Relaxed);
            // Whatever state the panic left in the scratch goes with it.
            session = model.session();
        }
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.micros.fetch_add(micros, Ordering::Relaxed);
        shared.done.fetch_add(1, Ordering::Relaxed);
        shared.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Picture;
    use crate::{Device, ErrorKind, ModelOptions, Prompt, SegmentOptions};

    fn model() -> Model {
        Model::open("tests/fixtures/tiny-a", &ModelOptions::on(Device::Cpu).threads(1)).unwrap()
    }

    fn later() -> Arc<Ticket> {
        Ticket::until(Instant::now() + Duration::from_secs(100))
    }

    fn block_on<T>(f: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(f)
    }

    #[test]
    fn a_panic_costs_one_session_and_nothing_else() {
        let pool = Pool::start(&model(), 1).unwrap();
        let picture = Picture::open("tests/fixtures/tiny-a/input.png").unwrap();
        block_on(async {
            let failed = pool.run(&later(), |_| -> crate::Result<()> { panic!("on purpose") }).await;
            assert!(matches!(failed, Err(Failure::Panicked)), "{failed:?}");
            let (found, times) = pool
                .run(&later(), move |s| {
                    s.run(&picture.view(), &[Prompt::point(20.0, 20.0)], &SegmentOptions::default())
                })
                .await
                .unwrap();
            assert_eq!(found.instances.len(), 1);
            assert!(times.iter().any(|(name, _)| *name == "encode_image"), "{times:?}");
        });
        // A job is counted after its answer is handed over.
        let counted = Instant::now() + Duration::from_secs(20);
        while pool.load().done < 2 && Instant::now() < counted {
            std::thread::yield_now();
        }
        let load = pool.load();
        assert_eq!((load.panics, load.done, load.waiting), (1, 2, 0));
    }

    #[test]
    fn tickets_stop_jobs_before_and_while_they_run() {
        let pool = Pool::start(&model(), 1).unwrap();
        let picture = Arc::new(Picture::open("tests/fixtures/tiny-a/input.png").unwrap());
        block_on(async {
            let stopped = later();
            stopped.stop();
            let late = Ticket::until(Instant::now());
            for ticket in [&stopped, &late] {
                let result = pool.run(ticket, |_| -> crate::Result<()> { panic!("must not begin") }).await;
                assert!(matches!(result, Err(Failure::Stopped)), "{result:?}");
            }
            let ticket = later();
            let (inside, shared) = (ticket.clone(), picture.clone());
            let result = pool
                .run(&ticket, move |s| {
                    inside.stop();
                    s.encode(&shared.view())
                })
                .await;
            assert!(matches!(&result, Err(Failure::Engine(e)) if e.kind() == ErrorKind::Cancelled), "{result:?}");
        });
        pool.close();
        block_on(async {
            let result = pool.run(&later(), |_| Ok(())).await;
            assert!(matches!(result, Err(Failure::Stopped)));
        });
        assert_eq!(pool.load().panics, 0);
    }
}
