//! What calls answer, alone, together and from many threads.

use sam3::image::{ImageView, PixelFormat};
use sam3::{
    Concept, ErrorKind, ExemplarBox, LowResMask, MaskPrompt, Model, ModelOptions, Object, Prompt, SegmentOptions,
};

use crate::harness::*;

#[test]
fn one_embedding_serves_many_threads_and_sessions() {
    let (model, picture) = (open("tiny-a"), picture("tiny-a"));
    let mut session = model.session();
    let image = session.encode(&picture.view()).unwrap();
    assert_eq!((image.width(), image.height()), (83, 59));
    let expected: Vec<_> =
        questions().iter().map(|q| session.segment(&image, std::slice::from_ref(q), &everything()).unwrap()).collect();
    drop(session);
    std::thread::scope(|scope| {
        for t in 0..4 {
            let (model, image, expected) = (model.clone(), &image, &expected);
            scope.spawn(move || {
                let mut session = model.session();
                for round in 0..4 {
                    // Each thread in another order, so that scratch is used differently.
                    let i = (t + round) % 4;
                    let answer = session.segment(image, &[questions()[i].clone()], &everything()).unwrap();
                    assert_same(&answer, &expected[i]);
                }
            });
        }
    });
    // A picture outlives the model's other handles.
    let mut last = model.session();
    drop(model);
    assert_same(&last.segment(&image, &[questions()[0].clone()], &everything()).unwrap(), &expected[0]);
}

#[test]
fn sessions_move_and_models_are_shared() {
    fn shared<T: Send + Sync>() {}
    fn movable<T: Send>() {}
    shared::<Model>();
    shared::<sam3::ImageEmbedding>();
    shared::<sam3::CancelHandle>();
    shared::<sam3::Segmentation>();
    movable::<sam3::Session>();
    let picture = picture("tiny-b");
    let mut session = open("tiny-b").session();
    let here = session.run(&picture.view(), &questions()[3..], &everything()).unwrap();
    let there = std::thread::spawn(move || {
        session.run(&crate::harness::picture("tiny-b").view(), &questions()[3..], &everything()).unwrap()
    });
    assert_same(&there.join().unwrap(), &here);
}

#[test]
fn several_prompts_in_one_call_equal_several_calls() {
    for name in ["tiny-a", "tiny-b"] {
        let (model, picture) = (open(name), picture(name));
        let mut session = model.session();
        let image = session.encode(&picture.view()).unwrap();
        let together = session.segment(&image, &questions(), &everything()).unwrap();
        assert_eq!(together.prompts.len(), 4);
        for (i, question) in questions().into_iter().enumerate() {
            let alone = session.segment(&image, &[question], &everything()).unwrap();
            let part: Vec<_> = together.instances.iter().filter(|f| f.prompt == i).collect();
            assert_eq!(part.len(), alone.instances.len());
            for (a, b) in part.into_iter().zip(&alone.instances) {
                assert_eq!((a.score, a.bbox, &a.mask), (b.score, b.bbox, &b.mask));
            }
            assert_eq!(together.prompts[i].raw, alone.prompts[0].raw);
            assert_eq!(together.prompts[i].presence, alone.prompts[0].presence);
        }
        assert!(together.instances.is_sorted_by(|a, b| a.score >= b.score));
        assert_same(&model.session().run(&picture.view(), &questions(), &everything()).unwrap(), &together);
    }
}

#[test]
fn thresholds_and_limits() {
    let (model, picture) = (open("tiny-a"), picture("tiny-a"));
    let mut session = model.session();
    let image = session.encode(&picture.view()).unwrap();
    let mut ask = |threshold, mask_threshold, max_masks| {
        let mut options = SegmentOptions::default();
        (options.threshold, options.mask_threshold, options.max_masks) = (threshold, mask_threshold, max_masks);
        session.segment(&image, &[Prompt::text("cat"), Prompt::point(9.0, 9.0)], &options)
    };
    let all = ask(0.0, 0.5, None).unwrap();
    assert_eq!(all.instances.len(), 14, "13 queries and an object");
    assert_eq!(ask(0.0, 0.5, Some(5)).unwrap().instances[..], all.instances[..5]);
    assert_eq!(ask(0.0, 0.5, Some(usize::MAX)).unwrap().instances, all.instances);
    // Objects were asked for by place: no threshold drops them.
    let object = ask(1.0, 0.5, None).unwrap();
    assert_eq!((object.instances.len(), object.instances[0].prompt), (1, 1));
    assert!(object.logits(0).is_some() && object.logits(1).is_none());
    assert!(ask(0.0, 0.0, None).unwrap().instances.iter().all(|i| i.area() == 83 * 59));
    assert!(ask(0.0, 1.0, None).unwrap().instances.iter().all(|i| i.mask.is_empty()));
    for (t, m, n) in
        [(-0.1, 0.5, None), (0.5, 1.1, None), (f32::NAN, 0.5, None), (0.5, f32::NAN, None), (0.5, 0.5, Some(0))]
    {
        fails(ask(t, m, n), ErrorKind::InvalidArgument, &["expected"]);
    }
}

#[test]
fn answers_are_refined_by_their_own_logits() {
    let (model, picture) = (open("tiny-a"), picture("tiny-a"));
    let mut session = model.session();
    let image = session.encode(&picture.view()).unwrap();
    let first = session.segment(&image, &[Prompt::point(20.0, 30.0)], &SegmentOptions::default()).unwrap();
    let logits = first.logits(0).unwrap().clone();
    assert_eq!(logits.side(), model.mask_side());
    let object = |mask| Object { points: vec![], bbox: None, mask: Some(mask) };
    let again = |session: &mut sam3::Session, mask| session.segment(&image, &[object(mask).into()], &everything());
    let second = again(&mut session, MaskPrompt::Logits(logits)).unwrap();
    assert_ne!(second.prompts[0].raw, first.prompts[0].raw);
    let other = LowResMask::new(vec![1.0; 40 * 40], 40).unwrap();
    fails(again(&mut session, MaskPrompt::Logits(other)), ErrorKind::InvalidArgument, &["32×32", "40×40"]);
    for (len, width, height) in [(0, 0, 0), (5, 2, 3), (6, usize::MAX, 3), (0, 0, 7)] {
        let mask = MaskPrompt::Picture { pixels: vec![0; len].into(), width, height };
        fails(again(&mut session, mask), ErrorKind::InvalidArgument, &["mask prompt"]);
    }
    // One pixel, or a tall sliver, is a mask like any other.
    for (width, height) in [(1, 1), (1, 5000)] {
        let mask = MaskPrompt::Picture { pixels: vec![255; width * height].into(), width, height };
        again(&mut session, mask).unwrap();
    }
}

#[test]
fn wrong_prompts_are_refused_before_any_stage_runs() {
    let (model, picture) = (open("tiny-a"), picture("tiny-a"));
    let mut session = model.session();
    let image = session.encode(&picture.view()).unwrap();
    let exemplar = |xyxy| Concept { text: None, exemplars: vec![ExemplarBox { xyxy, positive: true }] }.into();
    let wrong: Vec<(Vec<Prompt>, &str)> = vec![
        (vec![], "at least one prompt"),
        (vec![Concept::default().into()], "phrase or an exemplar"),
        (vec![Object::default().into()], "a point, a box or a mask"),
        (vec![Prompt::text("word ".repeat(40))], "32 tokens"),
        (vec![Prompt::text("cat"), Prompt::point(83.0, 1.0)], "83×59"),
        (vec![Prompt::bbox([1.0, f32::NAN, 3.0, 4.0])], "finite"),
        (vec![Prompt::bbox([3.0, 1.0, 1.0, 4.0])], "left top corner"),
        (vec![exemplar([0.0, 0.0, 5.0, 60.0])], "83×59"),
    ];
    for (prompts, word) in &wrong {
        session.take_timings();
        fails(session.segment(&image, prompts, &everything()), ErrorKind::InvalidArgument, &[word]);
        fails(session.run(&picture.view(), prompts, &everything()), ErrorKind::InvalidArgument, &[word]);
        assert_eq!(session.take_timings().iter().count(), 0, "{word}: time was spent");
    }
    // A prompt that touches every edge is within the picture.
    let edge = [exemplar([0.0, 0.0, 83.0, 59.0]), Prompt::bbox([0.0, 0.0, 83.0, 59.0]), Prompt::point(82.99, 58.99)];
    session.segment(&image, &edge, &everything()).unwrap();
    // So is one that is thinner than anything.
    session.segment(&image, &[exemplar([5.0, 5.0, 5.000001, 5.000001])], &everything()).unwrap();
}

#[test]
fn a_picture_of_another_model_is_refused() {
    let (a, again, b) = (open("tiny-a"), open("tiny-a"), open("tiny-b"));
    let image = a.session().encode(&picture("tiny-a").view()).unwrap();
    for other in [again, b] {
        let answer = other.session().segment(&image, &[Prompt::text("cat")], &everything());
        fails(answer, ErrorKind::InvalidArgument, &["another model"]);
    }
    a.clone().session().segment(&image, &[Prompt::text("cat")], &everything()).unwrap();
}

#[test]
fn pixels_come_in_any_layout_and_size() {
    let (model, picture) = (open("tiny-a"), picture("tiny-a"));
    let mut session = model.session();
    let expected = session.run(&picture.view(), &questions()[3..], &everything()).unwrap();
    let (w, h) = (picture.width(), picture.height());
    // Blue first, with a stride.
    let stride = 4 * w + 5;
    let mut bgra = vec![7; stride * h];
    for (i, p) in picture.pixels().chunks_exact(3).enumerate() {
        bgra[i / w * stride + i % w * 4..][..4].copy_from_slice(&[p[2], p[1], p[0], 255]);
    }
    let view = ImageView::new(&bgra, w, h, stride, PixelFormat::Bgra8).unwrap();
    assert_same(&session.run(&view, &questions()[3..], &everything()).unwrap(), &expected);
    for (w, h) in [(1, 1), (1, 700), (700, 1), (112, 112)] {
        let pixels = vec![99; w * h];
        let view = ImageView::new(&pixels, w, h, w, PixelFormat::Gray8).unwrap();
        let answer = session.run(&view, &[Prompt::text("cat"), Prompt::point(0.5, 0.5)], &everything()).unwrap();
        assert!(answer.instances.iter().all(|i| (i.mask.width(), i.mask.height()) == (w, h)));
    }
}

#[test]
fn phrases_are_encoded_once_for_all_sessions() {
    let model = open("tiny-a");
    let image = model.session().encode(&picture("tiny-a").view()).unwrap();
    let stages = |phrase: &str| {
        let mut session = model.session();
        let answer = session.segment(&image, &[Prompt::text(phrase)], &everything()).unwrap();
        (session.take_timings().iter().map(|(n, _)| n).collect::<Vec<_>>(), answer)
    };
    let (first, a) = stages("red circle");
    let (second, b) = stages("red circle");
    assert_eq!(first, ["encode_text", "ground", "masks", "postprocess"]);
    assert_eq!(second, ["ground", "masks", "postprocess"]);
    assert_same(&a, &b);
    // The cache is bounded: hundreds of phrases later the first is encoded again, to the same answer.
    let mut session = model.session();
    for i in 0..256 {
        session.segment(&image, &[Prompt::text(format!("cat {i}"))], &SegmentOptions::default()).unwrap();
    }
    let (third, c) = stages("red circle");
    assert_eq!(third, first);
    assert_same(&a, &c);
}

#[test]
fn threads_are_refused_or_counted() {
    let open = |threads| Model::open(fixture("tiny-a"), &ModelOptions::on(sam3::Device::Cpu).threads(threads));
    for threads in [0, 1025, usize::MAX] {
        fails(open(threads), ErrorKind::InvalidArgument, &["threads", "1024"]);
    }
    assert!(open(3).unwrap().info().device.contains("3 threads"));
}

#[test]
fn embeddings_say_what_they_hold() {
    let mut session = open("tiny-a").session();
    let image = session.encode(&picture("tiny-a").view()).unwrap();
    // 8×8 tokens of 32 channels: the detector's three levels; the tracker's with fewer channels, its coarse level twice,
    // and three projections of that to half the channels.
    let detector = (16 + 4 + 1) * 64 * 32;
    let tracker = 16 * 64 * 4 + 4 * 64 * 8 + 2 * 64 * 32 + 3 * 64 * 16;
    assert_eq!(image.bytes(), (detector + tracker) * 4);
}
