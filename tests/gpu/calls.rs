//! Calls of a model on the simulated GPU, in processes of their own, since the driver's settings are a process's.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use sam3::image::Picture;
use sam3::{Device, ErrorKind, Model, ModelOptions, Prompt, Result, SegmentOptions, Segmentation, Session};

use crate::harness::{child, fixture, simulated};

fn open() -> Result<Model> {
    Model::open(fixture(), &ModelOptions::on(Device::Cuda(0)))
}

fn picture() -> Picture {
    Picture::open(fixture().join("input.png")).unwrap()
}

/// A picture, a phrase and a click, with all raw outputs. Spaces make a phrase another one for the model's memory of
/// phrases, with the same tokens.
fn ask_spaced(session: &mut Session, spaces: usize) -> Result<Segmentation> {
    let mut options = SegmentOptions::default();
    options.raw = true;
    options.threshold = 0.0;
    options.max_masks = Some(3);
    let phrase = format!("red circle{}", " ".repeat(spaces));
    session.run(&picture().view(), &[Prompt::text(phrase), Prompt::point(20.0, 30.0)], &options)
}

fn ask(session: &mut Session) -> Result<Segmentation> {
    ask_spaced(session, 0)
}

/// Everything a caller sees of two answers is the same, every bit.
#[track_caller]
fn same(a: &Segmentation, b: &Segmentation) {
    assert_eq!(a.instances, b.instances);
    for (a, b) in a.prompts.iter().zip(&b.prompts) {
        assert_eq!(a.raw, b.raw);
    }
}

/// Writes a line into the driver's log, between what the driver writes there.
fn mark(text: &str) {
    let path = std::env::var_os("SAM3_SIM_LOG").unwrap();
    writeln!(std::fs::OpenOptions::new().append(true).open(path).unwrap(), "{text}").unwrap();
}

#[test]
#[ignore = "run by a_warm_call_replays_graphs_and_asks_for_nothing_else"]
fn child_warm() {
    let model = open().unwrap();
    let mut session = model.session();
    // Buffers grow, which cuts batches in pieces; single launches; graphs are made, two of each kind; graphs are run again,
    // for a phrase that is known and for one that is not.
    let rounds =
        [("round 0", 0), ("round 1", 1), ("round 2", 2), ("round 3", 3), ("round 4", 4), ("known", 4), ("new", 5)];
    let answers: Vec<_> = rounds
        .iter()
        .map(|&(name, spaces)| {
            mark(name);
            ask_spaced(&mut session, spaces).unwrap()
        })
        .collect();
    mark("end");
    answers.iter().for_each(|answer| same(&answers[0], answer));
    let times = session.take_timings();
    for stage in ["resize", "encode_image", "encode_text", "ground", "masks", "segment"] {
        let took = times.iter().find(|(name, _)| *name == stage).unwrap().1;
        assert!(!took.is_zero(), "{stage}");
    }
}

#[test]
fn a_warm_call_replays_graphs_and_asks_for_nothing_else() {
    if !simulated() {
        return;
    }
    let run = child("calls::child_warm", &[]);
    assert!(run.ok, "{}{}", run.out, run.err);
    run.nothing_is_left();
    let at = |mark: &str| run.log.iter().position(|line| line == mark).unwrap();
    let count = |lines: &[String], what: &str| lines.iter().filter(|line| line.starts_with(what)).count();
    assert!(count(&run.log[at("round 0")..at("round 1")], "allocate") > 20);
    assert!(count(&run.log[at("round 1")..at("known")], "instantiate") > 2);

    let (known, new) = (&run.log[at("known") + 1..at("new")], &run.log[at("new") + 1..at("end")]);
    for warm in [known, new] {
        // Copies, launches, graphs and waits: no memory, no name, no handle.
        let allowed = ["upload", "download", "copy", "launch", "graph", "set node", "wait"];
        let others: Vec<_> = warm.iter().filter(|line| !allowed.iter().any(|word| line.starts_with(word))).collect();
        // The features of a phrase are kept, so a new one takes a block.
        let features = usize::from(std::ptr::eq(warm, new));
        assert!(others.len() <= features && others.iter().all(|line| line.starts_with("allocate")), "{others:?}");
        // Only downloads wait, each for itself.
        let waits: Vec<_> = (0..warm.len()).filter(|&i| warm[i] == "wait").collect();
        assert_eq!(waits.len(), count(warm, "download"));
        assert!(waits.iter().all(|&i| warm[i - 1].starts_with("download")), "{warm:?}");
        // Nearly all launches are in graphs, those of the picture in one.
        let graphs: Vec<usize> = warm.iter().filter_map(|l| l.strip_prefix("graph ")?.parse().ok()).collect();
        let (launches, in_graphs, nodes) =
            (count(warm, "launch"), graphs.iter().sum::<usize>(), count(warm, "set node"));
        println!(
            "{launches} launches, {in_graphs} of them in graphs of {graphs:?}, {nodes} changed, {} waits",
            waits.len()
        );
        assert!(in_graphs * 10 >= launches * 9, "{in_graphs} of {launches} launches are in graphs");
        assert!(graphs.iter().max() > Some(&40), "{graphs:?} launches in graphs");
        // Buffers are where they were, but for those that callers keep.
        assert!(nodes * 10 <= launches, "{nodes} of {launches} launches are not as they were");
    }
}

#[test]
#[ignore = "run by failures_may_come_anywhere"]
fn child_fails_once() {
    // The failure comes while the model is opened, or in a call; what comes after works, with the same answer.
    let kind =
        if std::env::var_os("SAM3_SIM_FAIL_LAUNCH").is_some() { ErrorKind::Device } else { ErrorKind::OutOfMemory };
    let failures = std::cell::Cell::new(0);
    let failed = |e: &sam3::Error| {
        assert_eq!(e.kind(), kind, "{e}");
        failures.set(failures.get() + 1);
    };
    // An allocation that fails is followed by a second one that does.
    let open = || open().inspect_err(failed);
    let model = open().or_else(|_| open()).or_else(|_| open()).unwrap();
    let mut session = model.session();
    let mut ask = || ask(&mut session).inspect_err(failed);
    let first = ask().or_else(|_| ask()).or_else(|_| ask()).unwrap();
    same(&first, &ask().unwrap());
    same(&first, &super::calls::ask(&mut model.session()).unwrap());
    assert!((1..=2).contains(&failures.get()), "{} failures", failures.get());
}

/// Numbers of allocations and launches when the model is open, and after a first call.
fn measured() -> [[usize; 2]; 2] {
    let run = child("calls::child_warm", &[]);
    let at = |mark: &str| run.log.iter().position(|line| line == mark).unwrap();
    let count = |end: usize, what: &str| run.log[..end].iter().filter(|line| line.starts_with(what)).count();
    let (open, called) = (at("round 0"), at("round 1"));
    [[count(open, "allocate"), count(called, "allocate")], [count(open, "launch"), count(called, "launch")]]
}

#[test]
fn failures_may_come_anywhere() {
    if !simulated() {
        return;
    }
    let [[loaded, used], [loading, running]] = measured();
    for n in [1, loaded / 2, loaded, loaded + 1, (loaded + used) / 2, used] {
        let run = child("calls::child_fails_once", &[("SAM3_SIM_FAIL_ALLOCATION", &n.to_string())]);
        assert!(run.ok, "allocation {n} of {loaded} + {}: {}{}", used - loaded, run.out, run.err);
        run.nothing_is_left();
    }
    for n in [loading + 1, (loading + running) / 2, running] {
        let run = child("calls::child_fails_once", &[("SAM3_SIM_FAIL_LAUNCH", &n.to_string())]);
        assert!(run.ok, "launch {n} of {loading} + {}: {}{}", running - loading, run.out, run.err);
        run.nothing_is_left();
    }
    // After a fault nothing works any more, and all calls say so.
    for n in [loading + 1, (loading + running) / 2, running + 5] {
        let run = child("calls::child_breaks", &[("SAM3_SIM_FAULT", &n.to_string())]);
        assert!(run.ok, "fault at {n}: {}{}", run.out, run.err);
        run.nothing_is_left();
    }
}

#[test]
#[ignore = "run by failures_may_come_anywhere"]
fn child_breaks() {
    let model = open().unwrap();
    let mut session = model.session();
    let mut refused = 0;
    for _ in 0..4 {
        match ask(&mut session) {
            Ok(_) => assert_eq!(refused, 0),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Device, "{e}");
                assert!(e.to_string().contains("lost to this process"), "{e}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 2);
    assert_eq!(model.session().encode(&picture().view()).unwrap_err().kind(), ErrorKind::Device);
}

#[test]
#[ignore = "run by sessions_do_not_disturb_each_other"]
fn child_sessions() {
    let model = open().unwrap();
    let expected = ask(&mut model.session()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut session = model.session();
                (0..3).for_each(|_| same(&expected, &ask(&mut session).unwrap()));
            });
        }
    });
    // A call that is cancelled midway leaves nothing behind; one within another's progress is one of its own.
    let steps = AtomicUsize::new(0);
    let mut session = model.session();
    session.on_progress(move |_| steps.fetch_add(1, Ordering::Relaxed) != 4);
    assert_eq!(ask(&mut session).unwrap_err().kind(), ErrorKind::Cancelled);
    same(&expected, &ask(&mut session).unwrap());
    let inner = std::sync::Mutex::new(Some(model.session()));
    session.on_progress(move |_| {
        if let Some(mut inner) = inner.lock().unwrap().take() {
            ask(&mut inner).unwrap();
        }
        true
    });
    same(&expected, &ask(&mut session).unwrap());
}

#[test]
fn sessions_do_not_disturb_each_other() {
    if !simulated() {
        return;
    }
    let run = child("calls::child_sessions", &[]);
    assert!(run.ok, "{}{}", run.out, run.err);
    run.nothing_is_left();
}
