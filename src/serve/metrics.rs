//! Figures in Prometheus' text form: counters of this process since its start, and what it holds now.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::app::App;

/// Upper bounds of the histogram's buckets, seconds: from a health check to a large picture on a small machine.
const BUCKETS: [f64; 12] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

#[derive(Clone, Copy, Default)]
struct Histogram {
    /// Requests per bucket, those above the last bound at the end.
    counts: [u64; BUCKETS.len() + 1],
    sum: f64,
}

/// Counters.
#[derive(Default)]
pub struct Metrics {
    statuses: Mutex<BTreeMap<(&'static str, u16), u64>>,
    times: Mutex<BTreeMap<&'static str, Histogram>>,
    refused: AtomicU64,
    panics: AtomicU64,
}

impl Metrics {
    /// Counts an answer.
    pub fn request(&self, route: &'static str, status: u16, took: Duration) {
        *self.statuses.lock().unwrap_or_else(PoisonError::into_inner).entry((route, status)).or_default() += 1;
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = times.entry(route).or_default();
        let seconds = took.as_secs_f64();
        histogram.counts[BUCKETS.partition_point(|b| *b < seconds)] += 1;
        histogram.sum += seconds;
    }

    /// Counts a request that found no place.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a panic outside the sessions.
    pub fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }
}

/// All figures.
pub fn text(app: &App) -> String {
    let mut out = String::new();
    let head = |out: &mut String, name: &str, kind: &str, help: &str| {
        // Writing to a string does not fail.
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    };
    head(&mut out, "sam3_requests_total", "counter", "Answers by route and status.");
    for ((route, status), n) in app.metrics.statuses.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = writeln!(out, "sam3_requests_total{{route=\"{route}\",status=\"{status}\"}} {n}");
    }
    head(&mut out, "sam3_request_seconds", "histogram", "Time to the head of the answer, by route.");
    for (route, h) in app.metrics.times.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let mut sum = 0;
        for (bound, n) in BUCKETS.iter().zip(h.counts) {
            sum += n;
            let _ = writeln!(out, "sam3_request_seconds_bucket{{route=\"{route}\",le=\"{bound}\"}} {sum}");
        }
        let all: u64 = h.counts.iter().sum();
        let _ = writeln!(out, "sam3_request_seconds_bucket{{route=\"{route}\",le=\"+Inf\"}} {all}");
        let _ = writeln!(out, "sam3_request_seconds_sum{{route=\"{route}\"}} {}", h.sum);
        let _ = writeln!(out, "sam3_request_seconds_count{{route=\"{route}\"}} {all}");
    }
    let load = app.pool.load();
    let pictures = app.pictures.counts();
    let (files, file_bytes) = app.files.held();
    let panics = load.panics + app.metrics.panics.load(Ordering::Relaxed);
    for (name, kind, help, value) in [
        ("sam3_refused_total", "counter", "Requests refused with 429.", app.metrics.refused.load(Ordering::Relaxed)),
        ("sam3_panics_total", "counter", "Panics that were caught.", panics),
        ("sam3_jobs_total", "counter", "Jobs that sessions have done.", load.done),
        ("sam3_sessions", "gauge", "Sessions.", app.pool.sessions() as u64),
        ("sam3_sessions_busy", "gauge", "Sessions at work.", load.busy as u64),
        ("sam3_jobs_waiting", "gauge", "Jobs that wait for a session.", load.waiting as u64),
        ("sam3_requests_inside", "gauge", "Requests admitted and not yet answered.", app.inside() as u64),
        ("sam3_pictures_hits_total", "counter", "Pictures that had been looked at before.", pictures.hits),
        ("sam3_pictures_joins_total", "counter", "Requests that waited for another one's look.", pictures.joins),
        ("sam3_pictures_looks_total", "counter", "Pictures looked at.", pictures.looks),
        ("sam3_pictures_held", "gauge", "Pictures held.", pictures.held as u64),
        ("sam3_pictures_bytes", "gauge", "Bytes of the pictures held.", pictures.bytes as u64),
        ("sam3_files_held", "gauge", "Results and uploads held.", files as u64),
        ("sam3_files_bytes", "gauge", "Bytes of results and uploads.", file_bytes as u64),
        ("sam3_queue_requests", "gauge", "Requests of the queue, finished ones included.", app.requests.len() as u64),
    ] {
        head(&mut out, name, kind, help);
        let _ = writeln!(out, "{name} {value}");
    }
    out
}
