//! Run lengths against pycocotools, and what must hold for any mask: every form reads back as it was, polygons fill to
//! exactly the mask, and nothing that is read panics.

use proptest::prelude::*;
use sam3::instance::polygon::contours;
use sam3::instance::{Mask, rle};

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    height: usize,
    width: usize,
    counts: Option<Vec<u32>>,
    rle: String,
    area: u64,
    bbox: [f64; 4],
    rows: Option<String>,
}

/// The masks that the fixture does not spell out, in doubles and in the order in which generate.py computes them.
fn formula(case: &Case) -> Mask {
    let (h, w) = (case.height as f64, case.width as f64);
    Mask::from_fn(case.width, case.height, |x, y| {
        let [v, u] = [(2 * y + 1) as f64 - h, (2 * x + 1) as f64 - w];
        case.name.starts_with("full") || (v / h).powi(2) + (u / w).powi(2) < 0.7
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn equals_pycocotools() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rle/coco.json");
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(cases.len() >= 80);
    for case in &cases {
        let (w, h) = (case.width, case.height);
        let mask = rle::decode_coco(&case.rle, w, h).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        match &case.rows {
            Some(rows) => assert_eq!(hex(&mask.packed_bits()), *rows, "{}", case.name),
            None => assert_eq!(mask, formula(case), "{}", case.name),
        }
        assert_eq!(rle::encode_coco(&mask), case.rle, "{}", case.name);
        let counts = rle::encode_counts(&mask);
        if let Some(expected) = &case.counts {
            assert_eq!(counts, *expected, "{}", case.name);
        }
        assert_eq!(rle::counts_from_string(&case.rle, w, h).unwrap(), counts, "{}", case.name);
        assert_eq!(rle::decode_counts(&counts, w, h).unwrap(), mask, "{}", case.name);
        assert_eq!(mask.area(), case.area, "{}", case.name);
        let [x0, y0, x1, y1] = mask.bounding_box().unwrap_or_default().map(|v| v as f64);
        assert_eq!([x0, y0, x1 - x0, y1 - y0], case.bbox, "{}", case.name);
        assert_eq!(rle::decode_pairs(&rle::encode_pairs(&mask), w, h).unwrap(), mask, "{}", case.name);
    }
}

/// Even-odd filling at pixel centres, straight from the definition: a centre is inside if an odd number of edges cross
/// the row to its left. Written for any polygon.
fn fill(rings: &[&Vec<f32>], width: usize, height: usize) -> Mask {
    let mut mask = Mask::new(width, height);
    for y in 0..height {
        let centre = y as f32 + 0.5;
        let mut crossings = Vec::new();
        for ring in rings {
            let n = ring.len() / 2;
            for i in 0..n {
                let [ax, ay, bx, by] = [2 * i, 2 * i + 1, 2 * ((i + 1) % n), 2 * ((i + 1) % n) + 1].map(|k| ring[k]);
                if (ay < centre) != (by < centre) {
                    crossings.push(ax + (bx - ax) * (centre - ay) / (by - ay));
                }
            }
        }
        for x in 0..width {
            let left = crossings.iter().filter(|&&c| c < x as f32 + 0.5).count();
            mask.set(x, y, left % 2 == 1);
        }
    }
    mask
}

fn any_mask() -> impl Strategy<Value = Mask> {
    // Sizes around one and two words; noise of any density, and smooth blobs.
    (1usize..140, 1usize..140, any::<u64>(), 0u32..=8, 1usize..24).prop_map(|(w, h, seed, density, scale)| {
        Mask::from_fn(w, h, |x, y| {
            let cell = ((x / scale) as u64) << 32 | (y / scale) as u64;
            let mut hash = (cell ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash = (hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            ((hash >> 40) as u32 & 7) < density
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_form_reads_back(mask in any_mask()) {
        let (w, h) = (mask.width(), mask.height());
        prop_assert_eq!(&rle::decode_counts(&rle::encode_counts(&mask), w, h).unwrap(), &mask);
        prop_assert_eq!(&rle::decode_coco(&rle::encode_coco(&mask), w, h).unwrap(), &mask);
        prop_assert_eq!(&rle::decode_pairs(&rle::encode_pairs(&mask), w, h).unwrap(), &mask);
        prop_assert_eq!(&Mask::from_u8(w, h, &mask.to_u8()).unwrap(), &mask);
    }

    /// Against the definition, pixel by pixel.
    #[test]
    fn counts_alternate_down_the_columns(mask in any_mask()) {
        let mut flat = Vec::new();
        for x in 0..mask.width() {
            flat.extend((0..mask.height()).map(|y| mask.get(x, y)));
        }
        let mut expected = vec![0u32];
        let mut current = false;
        for pixel in flat {
            if pixel != current {
                expected.push(0);
                current = pixel;
            }
            *expected.last_mut().unwrap() += 1;
        }
        prop_assert_eq!(rle::encode_counts(&mask), expected);
    }

    #[test]
    fn exact_polygons_fill_to_the_mask(mask in any_mask()) {
        let found = contours(&mask, 0.0);
        let rings: Vec<_> = found.outer.iter().chain(&found.holes).collect();
        prop_assert_eq!(fill(&rings, mask.width(), mask.height()), mask);
    }

    #[test]
    fn simplified_polygons_keep_every_ring(mask in any_mask(), tolerance in 0.1f32..20.0) {
        let (exact, simple) = (contours(&mask, 0.0), contours(&mask, tolerance));
        prop_assert_eq!((exact.outer.len(), exact.holes.len()), (simple.outer.len(), simple.holes.len()));
        for (e, s) in exact.outer.iter().zip(&simple.outer).chain(exact.holes.iter().zip(&simple.holes)) {
            prop_assert!(s.len() >= 6 && s.len() <= e.len() && s.len() % 2 == 0);
        }
    }

    #[test]
    fn garbage_never_panics(
        text in "[0-~ ]{0,60}|\\PC{0,40}|([0-9]{1,22} ){0,12}",
        counts in prop::collection::vec(any::<u32>(), 0..20),
        w in 0usize..70, h in 0usize..70,
    ) {
        if let Ok(mask) = rle::decode_coco(&text, w, h) {
            prop_assert_eq!(&rle::decode_coco(&rle::encode_coco(&mask), w, h).unwrap(), &mask);
        }
        if let Ok(mask) = rle::decode_pairs(&text, w, h) {
            prop_assert_eq!(&rle::decode_pairs(&rle::encode_pairs(&mask), w, h).unwrap(), &mask);
        }
        let _ = rle::decode_counts(&counts, w, h);
        let _ = rle::decode_coco(&text, usize::MAX, usize::MAX);
        let _ = rle::decode_pairs(&text, usize::MAX, h);
    }

    /// Zero-length runs and any cut of the pixels are what a foreign writer may send.
    #[test]
    fn any_counts_that_add_up_are_read(mut cuts in prop::collection::vec(0u32..=700, 0..40)) {
        cuts.extend([0, 700]);
        cuts.sort_unstable();
        let counts: Vec<u32> = cuts.windows(2).map(|c| c[1] - c[0]).collect();
        let mask = rle::decode_counts(&counts, 35, 20).unwrap();
        for (i, pixel) in (0..700).map(|p| mask.get(p / 20, p % 20)).enumerate() {
            let run = cuts.partition_point(|&c| c as usize <= i) - 1;
            prop_assert_eq!(pixel, run % 2 == 1, "pixel {}", i);
        }
        let text = rle::counts_to_string(&counts);
        prop_assert_eq!(rle::counts_from_string(&text, 35, 20).unwrap(), counts);
    }
}
