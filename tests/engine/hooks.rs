//! Progress, cancellation and timings.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sam3::{ErrorKind, Progress, Prompt, SegmentOptions, Stage};

use crate::harness::*;

#[test]
fn progress_rises_to_1_in_every_stage() {
    for name in ["tiny-a", "tiny-b"] {
        let mut session = open(name).session();
        let steps: Arc<Mutex<Vec<Progress>>> = Arc::default();
        let sink = steps.clone();
        session.on_progress(move |p| {
            sink.lock().unwrap().push(p);
            true
        });
        let picture = picture(name);
        for raw in [false, true] {
            let mut options = SegmentOptions::default();
            options.raw = raw;
            steps.lock().unwrap().clear();
            // Threshold 0.5 keeps no instance: stages without work end, too.
            session.run(&picture.view(), &[Prompt::text(format!("cat {raw}"))], &options).unwrap();
            session.run(&picture.view(), &[Prompt::point(9.0, 9.0)], &options).unwrap();
            let steps = steps.lock().unwrap();
            let runs: Vec<&[Progress]> = steps.chunk_by(|a, b| a.stage == b.stage).collect();
            let order: Vec<Stage> = runs.iter().map(|r| r[0].stage).collect();
            use Stage::{EncodeImage, EncodeText, Ground, Masks, Segment};
            assert_eq!(order, [EncodeImage, EncodeText, Ground, Masks, EncodeImage, Segment], "{name}");
            for run in runs {
                assert_eq!(run[0].fraction, 0.0, "{run:?}");
                assert_eq!(run[run.len() - 1].fraction, 1.0, "{run:?}");
                assert!(run.is_sorted_by(|a, b| a.fraction < b.fraction), "{run:?}");
            }
        }
    }
}

#[test]
fn progress_that_says_no_cancels_at_every_step() {
    let (model, picture) = (open("tiny-a"), picture("tiny-a"));
    let expected = model.session().run(&picture.view(), &questions(), &everything()).unwrap();
    let mut stages = Vec::new();
    for stop in 0.. {
        // A model of its own, so that no phrase is known.
        let mut session = open("tiny-a").session();
        let count = Arc::new(AtomicUsize::new(0));
        let (counter, last) = (count.clone(), Arc::new(Mutex::new(None)));
        let sink = last.clone();
        session.on_progress(move |p| {
            *sink.lock().unwrap() = Some(p.stage);
            counter.fetch_add(1, Ordering::Relaxed) != stop
        });
        let result = session.run(&picture.view(), &questions(), &everything());
        if count.load(Ordering::Relaxed) <= stop {
            assert_same(&result.unwrap(), &expected);
            break;
        }
        let stage = last.lock().unwrap().unwrap();
        fails(result, ErrorKind::Cancelled, &["cancelled", stage.name()]);
        assert_eq!(count.load(Ordering::Relaxed), stop + 1, "nothing ran on");
        stages.push(stage);
        // What was interrupted leaves no trace in the scratch memory.
        session.on_progress(|_| true);
        assert_same(&session.run(&picture.view(), &questions(), &everything()).unwrap(), &expected);
    }
    for stage in [Stage::EncodeImage, Stage::EncodeText, Stage::Ground, Stage::Masks, Stage::Segment] {
        assert!(stages.contains(&stage), "{stage:?} was never cancelled");
    }
}

#[test]
fn another_thread_cancels_and_the_next_call_works() {
    let (model, picture) = (open("tiny-a"), picture("tiny-a"));
    let expected = model.session().run(&picture.view(), &questions(), &everything()).unwrap();
    let mut session = model.session();
    let handle = session.cancel_handle();
    // Without a call nothing is cancelled.
    handle.cancel();
    assert_same(&session.run(&picture.view(), &questions(), &everything()).unwrap(), &expected);
    handle.cancel();
    let image = session.encode(&picture.view()).unwrap();
    handle.cancel();
    assert_same(&session.segment(&image, &questions(), &everything()).unwrap(), &expected);

    // Cancel in the midst: the first step waits until the other thread has done it.
    let gate = Arc::new(std::sync::Barrier::new(2));
    let (here, there) = (gate.clone(), gate);
    let armed = Arc::new(AtomicUsize::new(1));
    let arm = armed.clone();
    session.on_progress(move |p| {
        if p.fraction > 0.0 && armed.swap(0, Ordering::Relaxed) == 1 {
            here.wait();
            here.wait();
        }
        true
    });
    for _ in 0..3 {
        arm.store(1, Ordering::Relaxed);
        let (handle, there) = (handle.clone(), there.clone());
        let canceller = std::thread::spawn(move || {
            there.wait();
            handle.cancel();
            there.wait();
        });
        fails(session.encode(&picture.view()), ErrorKind::Cancelled, &["encode_image"]);
        canceller.join().unwrap();
        assert_same(&session.run(&picture.view(), &questions(), &everything()).unwrap(), &expected);
    }
    // One session's handle is not another's.
    let mut other = model.session();
    other.on_progress(move |_| {
        handle.cancel();
        true
    });
    assert_same(&other.run(&picture.view(), &questions(), &everything()).unwrap(), &expected);
}

#[test]
fn a_cancellation_between_the_halves_of_a_run_is_kept() {
    let mut session = open("tiny-a").session();
    let handle = session.cancel_handle();
    let steps = Arc::new(AtomicUsize::new(0));
    let count = steps.clone();
    session.on_trace(move |name, _| {
        // The last intermediate of the picture, after its last step.
        if name == "tracker.top" {
            handle.cancel();
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let picture = picture("tiny-a");
    fails(session.run(&picture.view(), &questions(), &everything()), ErrorKind::Cancelled, &["encode_text"]);
    assert_eq!(steps.load(Ordering::Relaxed), 1);
}

#[test]
fn timings_name_the_stages_and_are_taken_once() {
    let mut session = open("tiny-a").session();
    session.run(&picture("tiny-a").view(), &questions(), &everything()).unwrap();
    let timings = session.take_timings();
    let names: Vec<_> = timings.iter().map(|(n, _)| n).collect();
    assert_eq!(names, ["resize", "encode_image", "encode_text", "ground", "masks", "postprocess", "segment"]);
    assert!(timings.iter().all(|(_, t)| t.as_nanos() > 0));
    assert_eq!(session.take_timings().iter().count(), 0);
}

#[test]
fn a_trace_that_is_off_sees_nothing() {
    let mut session = open("tiny-a").session();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    session.on_trace(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    session.encode(&picture("tiny-a").view()).unwrap();
    let before = seen.load(Ordering::Relaxed);
    session.off_trace();
    session.encode(&picture("tiny-a").view()).unwrap();
    assert!(before > 0);
    assert_eq!(seen.load(Ordering::Relaxed), before);
}
