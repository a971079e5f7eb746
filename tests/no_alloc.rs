//! A warm call allocates its results and nothing else.
//!
//! A counting allocator serves the whole program, worker threads included, and the progress hook reads the counter after
//! every step of a stage. Between the steps lie the model's layers, so between them nothing may be allocated.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use sam3::image::Picture;
use sam3::{Device, ImageEmbedding, Model, ModelOptions, Prompt, SegmentOptions, Session, Stage};

/// The system's allocator, counting what is asked of it.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged, which keeps the trait's promises; the counter is no memory
// of either.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller keeps `alloc`'s conditions, which are the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from the system's allocator with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: as above, and `size` is the caller's to keep legal.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The counter after each step since [`watch`], in memory of its own.
static STEPS: Mutex<[Option<(Stage, usize)>; 64]> = Mutex::new([None; 64]);

fn step(stage: Stage) {
    let now = ALLOCATIONS.load(SeqCst);
    let mut steps = STEPS.lock().unwrap();
    *steps.iter_mut().find(|s| s.is_none()).expect("a tiny model has few steps") = Some((stage, now));
}

/// Allocations of a call: between its steps by stage, and in all.
struct Count {
    steps: Vec<(Stage, usize)>,
    all: usize,
}

impl Count {
    /// Between the first and the last step of `stage`.
    fn of(&self, stage: Stage) -> usize {
        let mut found = self.steps.iter().filter(|s| s.0 == stage).map(|s| s.1);
        let first = found.next().unwrap_or_else(|| panic!("no step of {stage:?}"));
        found.next_back().unwrap_or(first) - first
    }
}

fn count<T>(call: impl FnOnce() -> T) -> Count {
    *STEPS.lock().unwrap() = [None; 64];
    let before = ALLOCATIONS.load(SeqCst);
    let result = call();
    let all = ALLOCATIONS.load(SeqCst) - before;
    drop(result);
    Count { steps: STEPS.lock().unwrap().iter().flatten().copied().collect(), all }
}

/// The buffers of an encoded picture that are made between the steps: three levels of the detector's pyramid, three of
/// the tracker's.
const PYRAMIDS: usize = 3 + 3;

/// Those made after the last step: the tracker's coarse level with the embedding of no mask, and the keys, values and
/// queries its first block makes of that.
const SEEN: usize = 1 + 3;

/// What answering makes beside the features: the prompt's tokens on their way in (points, coordinates, their embedding),
/// logits and boxes, mask logits, masks, their rows while they are resized, and the lists that hold them. None of it
/// grows with the number of layers or with the picture the model looks at, only with the instances found.
const ANSWER: usize = 60;

/// What the tokenizer makes of a short phrase, whose length is checked in every call: a word is a handful of strings.
const TOKENIZER: usize = 120;

fn ask(session: &mut Session, image: &ImageEmbedding, prompt: &Prompt) -> Count {
    let mut options = SegmentOptions::default();
    options.threshold = 0.0;
    options.max_masks = Some(2);
    count(|| session.segment(image, std::slice::from_ref(prompt), &options).unwrap())
}

#[test]
fn a_warm_call_allocates_its_results_only() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-a");
    let picture = Picture::open(tiny.join("input.png")).unwrap();
    for threads in [1, 2, 3] {
        let model = Model::open(&tiny, &ModelOptions::on(Device::Cpu).threads(threads)).unwrap();
        let mut session = model.session();
        session.on_progress(|progress| {
            step(progress.stage);
            true
        });
        // Two calls of each kind, from first to last, to be warm.
        let mut image = session.encode(&picture.view()).unwrap();
        let click = Prompt::point(30.0, 20.0);
        for phrase in ["a red cat on a mat", "two blue cats"] {
            ask(&mut session, &image, &Prompt::text(phrase));
            ask(&mut session, &image, &click);
            image = session.encode(&picture.view()).unwrap();
        }

        let encoding = count(|| session.encode(&picture.view()).unwrap());
        assert_eq!(encoding.of(Stage::EncodeImage), PYRAMIDS, "{threads} threads");
        // The resized picture and the tables of its resizing, the features and the handles on them.
        assert!(encoding.all <= PYRAMIDS + SEEN + 30, "{threads} threads: {}", encoding.all);

        let phrase = ask(&mut session, &image, &Prompt::text("a dog"));
        for stage in [Stage::EncodeText, Stage::Ground] {
            assert_eq!(phrase.of(stage), 0, "{threads} threads, {stage:?}");
        }
        // Logits of the two masks, and the list of them.
        assert_eq!(phrase.of(Stage::Masks), 3, "{threads} threads");
        let again = ask(&mut session, &image, &Prompt::text("a dog"));
        assert!(again.all <= ANSWER + TOKENIZER, "{threads} threads, known phrase: {}", again.all);

        let clicked = ask(&mut session, &image, &click);
        // Tokens, IoUs, the mask's logits, and the lists of one mask and one IoU.
        assert_eq!(clicked.of(Stage::Segment), 5, "{threads} threads");
        assert!(clicked.all <= ANSWER, "{threads} threads, click: {}", clicked.all);
    }
}
