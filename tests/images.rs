//! Pictures against upstream: what is decoded, how it is resized, and what is refused.
//!
//! The fixtures, and the versions that made them, are in `fixtures/images/generate.py`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sam3::ErrorKind;
use sam3::image::{
    BilinearRows, DecodeLimits, FileFormat, ImageView, NORMALISED, Picture, PixelFormat, encode, normalise, resize,
    resize_antialias_f32, resize_bilinear_f32, save, save_as,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images").join(name)
}

fn read(name: &str) -> Vec<u8> {
    fs::read(fixture(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn lines(name: &str) -> Vec<Vec<String>> {
    let text = String::from_utf8(read(name)).unwrap();
    text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

fn fnv(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// `noise` of generate.py.
fn noise(width: usize, height: usize, channels: usize, seed: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(width * height * channels);
    for y in 0..height {
        for x in 0..width {
            for c in 0..channels {
                let n = (x as u64 * 73_856_093) ^ (y as u64 * 19_349_663) ^ (c as u64 * 83_492_791);
                let n = (n + seed as u64).wrapping_mul(2_654_435_761) & 0xffff_ffff;
                let n = ((n ^ (n >> 15)) * 2_246_822_519) & 0xffff_ffff;
                let byte = (n >> 24) as u8;
                out.push(match seed % 3 {
                    1 => 255 * (byte >> 7),
                    2 => ((x * 3 + y * 5 + c * 40) % 256) as u8,
                    _ => byte,
                });
            }
        }
    }
    out
}

/// Largest difference, or a message when the lengths differ.
fn worst(got: &[u8], want: &[u8]) -> u8 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

// Resize and normalise.

#[test]
fn resize_equals_upstream() {
    let cases = lines("resize.txt");
    assert!(cases.len() > 50);
    for case in cases {
        let n: Vec<usize> = case[..4].iter().map(|v| v.parse().unwrap()).collect();
        let (w, h, side, seed) = (n[0], n[1], n[2], n[3]);
        let data = noise(w, h, 3, seed);
        let got = resize(&ImageView::new(&data, w, h, w * 3, PixelFormat::Rgb8).unwrap(), side);
        assert_eq!(got.len(), side * side * 3);
        let step = (got.len() / 8).max(1);
        for (i, want) in case[5..].iter().enumerate() {
            assert_eq!(got[i * step], want.parse::<u8>().unwrap(), "{w}x{h} to {side}, sample {}", i * step);
        }
        assert_eq!(format!("{:016x}", fnv(&got)), case[4], "{w}x{h} to {side}");
    }
}

#[test]
fn resize_of_a_photograph_equals_upstream() {
    let source = Picture::open(fixture("resize-source.png")).unwrap();
    let want = Picture::open(fixture("resize-84.png")).unwrap();
    assert_eq!(resize(&source.view(), 84), want.pixels());
}

#[test]
fn resize_reads_every_format_and_stride() {
    let (w, h, side) = (23, 17, 31);
    let rgb = noise(w, h, 3, 0);
    let want = resize(&ImageView::new(&rgb, w, h, w * 3, PixelFormat::Rgb8).unwrap(), side);
    for (format, order) in [
        (PixelFormat::Rgb8, &[0usize, 1, 2][..]),
        (PixelFormat::Bgr8, &[2, 1, 0]),
        (PixelFormat::Rgba8, &[0, 1, 2, 3]),
        (PixelFormat::Bgra8, &[2, 1, 0, 3]),
        // What lies in the fourth byte of these is nobody's business.
        (PixelFormat::Rgbx8, &[0, 1, 2, 0]),
        (PixelFormat::Bgrx8, &[2, 1, 0, 1]),
    ] {
        for pad in [0, 1, 13] {
            let mut data = Vec::new();
            for row in rgb.chunks(w * 3) {
                for px in row.chunks(3) {
                    data.extend(order.iter().map(|&c| px.get(c).copied().unwrap_or(255)));
                }
                data.extend(vec![0xee; pad]);
            }
            // The last row may end with its pixels.
            data.truncate(data.len() - pad);
            let view = ImageView::new(&data, w, h, w * order.len() + pad, format).unwrap();
            assert_eq!(resize(&view, side), want, "{format:?}, {pad} bytes of padding");
            assert_eq!(Picture::from_view(&view).unwrap().pixels(), rgb);
        }
    }
    let grey = noise(w, h, 1, 0);
    let tripled: Vec<u8> = grey.iter().flat_map(|&v| [v; 3]).collect();
    assert_eq!(
        resize(&ImageView::new(&grey, w, h, w, PixelFormat::Gray8).unwrap(), side),
        resize(&ImageView::new(&tripled, w, h, w * 3, PixelFormat::Rgb8).unwrap(), side),
    );
}

#[test]
fn normalised_values_equal_upstream() {
    let want = read("normalised.f32");
    assert_eq!(want.len(), 256 * 4);
    for v in 0..=255u8 {
        let bits = u32::from_le_bytes(want[4 * usize::from(v)..][..4].try_into().unwrap());
        assert_eq!(normalise(v).to_bits(), bits, "{v}");
        assert_eq!(NORMALISED[usize::from(v)].to_bits(), bits, "{v}");
    }
}

#[test]
fn transparency_is_laid_over_white_as_upstream_does() {
    let mut data = Vec::new();
    for a in 0..=255u8 {
        for v in 0..=255u8 {
            data.extend([v, 255 - v, v / 2, a]);
        }
    }
    let view = ImageView::new(&data, 256, 256, 1024, PixelFormat::Rgba8).unwrap();
    let got = Picture::from_view(&view).unwrap();
    assert_eq!(format!("{:016x}", fnv(got.pixels())), lines("over-white.txt")[0][0]);
}

#[test]
fn interpolation_equals_upstream_within_a_millionth() {
    let cases = lines("interpolate.txt");
    assert_eq!(cases.len(), 60);
    for case in cases {
        let n: Vec<usize> = case[..6].iter().map(|v| v.parse().unwrap()).collect();
        let (h, w, oh, ow, seed) = (n[0], n[1], n[2], n[3], n[4]);
        let src: Vec<f32> = noise(w, h, 1, seed).iter().map(|&v| (f32::from(v) - 128.0) / 64.0).collect();
        let resized = if n[5] == 1 { resize_antialias_f32 } else { resize_bilinear_f32 };
        let got = resized(&src, h, w, oh, ow);
        assert_eq!(got.len(), oh * ow);
        for sample in &case[6..] {
            let (at, want) = sample.split_once(':').unwrap();
            let want = f32::from_bits(u32::from_str_radix(want, 16).unwrap().swap_bytes());
            let got = got[at.parse::<usize>().unwrap()];
            // Values reach 2, so that a millionth of them is 8 units in the last place.
            assert!((got - want).abs() <= 2e-6, "{h}x{w} to {oh}x{ow}, kind {}: {got} for {want}", n[5]);
        }
    }
}

#[test]
fn rows_come_one_by_one_and_end() {
    let src: Vec<f32> = noise(9, 7, 1, 0).iter().map(|&v| f32::from(v)).collect();
    let want = resize_bilinear_f32(&src, 7, 9, 20, 33);
    let mut rows = BilinearRows::new(&src, 7, 9, 20, 33);
    for y in 0..20 {
        assert_eq!(rows.next_row().unwrap(), &want[y * 33..][..33]);
    }
    assert!(rows.next_row().is_none());
    assert_eq!(resize_bilinear_f32(&src, 7, 9, 7, 9), src);
}

// Files.

#[test]
fn every_file_decodes_as_upstream_reads_it() {
    let cases = lines("files.txt");
    assert!(cases.len() > 60);
    let mut failures = Vec::new();
    for case in cases {
        let name = case[0].as_str();
        if name.ends_with(".avif") && cfg!(not(feature = "avif")) {
            continue;
        }
        let want = read(&format!("files/{name}.rgb"));
        let (w, h, tolerance): (usize, usize, u8) =
            (case[1].parse().unwrap(), case[2].parse().unwrap(), case[3].parse().unwrap());
        match Picture::open(fixture("files").join(name)) {
            Ok(got) if (got.width(), got.height()) != (w, h) => failures.push(format!("{name}: {got:?}")),
            Ok(got) => {
                let worst = worst(got.pixels(), &want);
                let sum: u64 = got.pixels().iter().zip(&want).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
                let mean = sum as f64 / want.len() as f64;
                if worst > tolerance || mean > 0.7 {
                    failures.push(format!("{name}: off by {worst}, {tolerance} allowed, {mean:.3} on average"));
                }
            }
            Err(e) => failures.push(e.to_string()),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_content_tells_the_format_and_the_name_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    fs::copy(fixture("files/420.jpg"), &path).unwrap();
    assert_eq!(Picture::open(&path).unwrap(), Picture::open(fixture("files/420.jpg")).unwrap());
}

#[test]
fn what_is_no_picture_is_refused_with_its_reason() {
    let kind = |bytes: &[u8]| Picture::decode(bytes).unwrap_err().kind();
    assert_eq!(kind(b""), ErrorKind::Unsupported);
    assert_eq!(kind(b"hello, this is text"), ErrorKind::Unsupported);
    assert_eq!(kind(b"\0\0\0\x18ftypheic\0\0\0\0heicmif1"), ErrorKind::Unsupported);
    let missing = Picture::open(fixture("files/none.png")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Io);
    assert!(missing.to_string().contains("none.png"), "{missing}");
}

#[test]
fn files_cut_short_are_errors() {
    // A file may lose its last bytes (padding, trailers) and still hold every pixel; half of one never does.
    for name in ["rgb.png", "420.jpg", "progressive.jpg", "lossless.webp", "lossy.webp", "palette.gif", "rgb.bmp"]
        .into_iter()
        .chain(["plain.tiff", "lzw.tiff", "grey16.png"])
        .chain(cfg!(feature = "avif").then_some("420-full.avif"))
    {
        let bytes = read(&format!("files/{name}"));
        for keep in [bytes.len() / 8, bytes.len() / 4, bytes.len() / 2, bytes.len() * 3 / 4] {
            let got = Picture::decode(&bytes[..keep]);
            assert!(got.is_err(), "{name}: {keep} of {} bytes gave {got:?}", bytes.len());
        }
    }
}

/// A file whose header claims a size, and no more than a few bytes of pixels.
fn giant_png(width: u32, height: u32) -> Vec<u8> {
    let crc = |data: &[u8]| {
        !data.iter().fold(!0u32, |crc, &b| {
            (0..8).fold(crc ^ u32::from(b), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
        })
    };
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    // A zlib stream of one stored byte.
    let body = [0x78, 0x01, 1, 1, 0, 0xfe, 0xff, 0, 0, 1, 0, 1];
    for (kind, data) in [(b"IHDR", &header[..]), (b"IDAT", &body), (b"IEND", &[])] {
        let chunk = [&kind[..], data].concat();
        out.extend((data.len() as u32).to_be_bytes());
        out.extend(&chunk);
        out.extend(crc(&chunk).to_be_bytes());
    }
    out
}

#[test]
fn headers_that_claim_too_much_are_refused_at_once() {
    let patched = |name: &str, at: usize, value: &[u8]| {
        let mut bytes = read(&format!("files/{name}"));
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let jpeg = read("files/420.jpg");
    let sof = jpeg.windows(4).position(|w| w == [0xff, 0xc0, 0, 17]).unwrap();
    let mut files = vec![
        ("png", giant_png(60_000, 60_000)),
        ("png at the limit", giant_png(13_377, 13_377)),
        ("png as wide as can be", giant_png(0x7fff_ffff, 0x7fff_ffff)),
        ("png of one column", giant_png(1, 100_000_000)),
        ("jpeg", patched("420.jpg", sof + 5, &[0xff, 0xff, 0xff, 0xff])),
        ("gif", patched("palette.gif", 6, &[0xff, 0xff, 0xff, 0xff])),
        ("bmp", patched("rgb.bmp", 18, &[0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0x0f])),
    ];
    if cfg!(feature = "avif") {
        let at = read("files/420-full.avif").windows(4).position(|w| w == b"ispe").unwrap();
        files.push(("avif", patched("420-full.avif", at + 8, &[0, 1, 0, 0, 0, 1, 0, 0])));
    }
    for (name, bytes) in files {
        let start = Instant::now();
        let error = Picture::decode(&bytes).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Image | ErrorKind::Unsupported), "{name}: {error}");
        assert!(start.elapsed() < Duration::from_secs(2), "{name} took {:?}: {error}", start.elapsed());
    }
}

#[test]
fn limits_are_the_callers() {
    let files = ["rgb.png", "420.jpg", "lossy.webp", "palette.gif", "rgb.bmp", "lzw.tiff"];
    for name in files.into_iter().chain(cfg!(feature = "avif").then_some("420-full.avif")) {
        let bytes = read(&format!("files/{name}"));
        let mut limits = DecodeLimits::default();
        limits.max_pixels = 47 * 35;
        assert!(Picture::decode_with(&bytes, &limits).is_ok(), "{name}");
        limits.max_pixels -= 1;
        assert_eq!(Picture::decode_with(&bytes, &limits).unwrap_err().kind(), ErrorKind::Image, "{name}");

        let mut limits = DecodeLimits::default();
        limits.max_side = 47;
        assert!(Picture::decode_with(&bytes, &limits).is_ok(), "{name}");
        limits.max_side -= 1;
        assert_eq!(Picture::decode_with(&bytes, &limits).unwrap_err().kind(), ErrorKind::Image, "{name}");

        let mut limits = DecodeLimits::default();
        limits.max_file = bytes.len() as u64;
        assert!(Picture::open_with(fixture("files").join(name), &limits).is_ok(), "{name}");
        limits.max_file -= 1;
        let error = Picture::open_with(fixture("files").join(name), &limits).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Image, "{name}: {error}");
    }
}

#[cfg(feature = "avif")]
#[test]
fn avif_variants_without_support_say_so() {
    let bytes = read("files/420-full.avif");
    let with = |old: &[u8; 4], new: &[u8; 4]| {
        let mut bytes = bytes.clone();
        // The item type stands in `infe`, after the brand of the same letters if there is one: replace them all.
        for i in 0..bytes.len() - 3 {
            if &bytes[i..i + 4] == old {
                bytes[i..i + 4].copy_from_slice(new);
            }
        }
        Picture::decode(&bytes).unwrap_err()
    };
    for (old, new, says) in [(b"av01", b"grid", "grid"), (b"av01", b"hvc1", "hvc1"), (b"avif", b"heic", "heic")] {
        let error = with(old, new);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

// Views.

#[test]
fn views_that_do_not_fit_their_buffer_are_refused() {
    let data = [0; 100];
    let view = |w, h, stride, format| ImageView::new(&data, w, h, stride, format);
    assert!(view(5, 5, 20, PixelFormat::Rgba8).is_ok());
    assert!(view(5, 6, 17, PixelFormat::Rgb8).is_ok(), "5 * 17 + 15 = 100");
    for (w, h, stride, format) in [
        (0, 5, 20, PixelFormat::Gray8),
        (5, 0, 20, PixelFormat::Gray8),
        (5, 5, 14, PixelFormat::Bgr8),
        (5, 6, 18, PixelFormat::Bgr8),
        (101, 1, 101, PixelFormat::Gray8),
        (usize::MAX, 1, usize::MAX, PixelFormat::Rgb8),
        (usize::MAX / 2, 1, usize::MAX, PixelFormat::Gray8),
        (1, usize::MAX, 2, PixelFormat::Gray8),
        (1, 2, usize::MAX, PixelFormat::Gray8),
    ] {
        let error = view(w, h, stride, format).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{w}x{h} stride {stride} {format:?}");
    }
}

// Encoding.

#[test]
fn lossless_formats_return_the_same_pixels() {
    let (w, h) = (19, 11);
    for format in [FileFormat::Png, FileFormat::WebP] {
        for (pixels, channels) in [
            (PixelFormat::Rgb8, 3),
            (PixelFormat::Bgr8, 3),
            (PixelFormat::Gray8, 1),
            (PixelFormat::Rgba8, 4),
            (PixelFormat::Rgbx8, 4),
            (PixelFormat::Bgrx8, 4),
        ] {
            let data = noise(w + 2, h, channels, 0);
            let view = ImageView::new(&data, w, h, (w + 2) * channels, pixels).unwrap();
            let back = Picture::decode(&encode(&view, format).unwrap()).unwrap();
            assert_eq!(back, Picture::from_view(&view).unwrap(), "{format:?} {pixels:?}");
        }
    }
}

#[test]
fn jpeg_is_close_and_refuses_transparency() {
    let picture = Picture::open(fixture("resize-source.png")).unwrap();
    let back = Picture::decode(&encode(&picture.view(), FileFormat::Jpeg).unwrap()).unwrap();
    assert_eq!((back.width(), back.height()), (picture.width(), picture.height()));
    let error: u64 =
        back.pixels().iter().zip(picture.pixels()).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum::<u64>();
    let psnr = 10.0 * (255.0f64.powi(2) * picture.pixels().len() as f64 / error as f64).log10();
    assert!(psnr > 38.0, "{psnr:.1} dB at quality 95");

    let data = [0; 4];
    let view = ImageView::new(&data, 1, 1, 4, PixelFormat::Rgba8).unwrap();
    assert_eq!(encode(&view, FileFormat::Jpeg).unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn files_are_written_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let data = noise(8, 8, 3, 0);
    let view = ImageView::new(&data, 8, 8, 24, PixelFormat::Rgb8).unwrap();
    save(&view, dir.path().join("a.PNG")).unwrap();
    save(&view, dir.path().join("a.PNG")).unwrap();
    save_as(&view, dir.path().join("b.out"), FileFormat::WebP).unwrap();
    assert_eq!(names(), ["a.PNG", "b.out"]);
    assert_eq!(Picture::open(dir.path().join("b.out")).unwrap().pixels(), data);

    for name in ["c.bmp", "c", ""] {
        assert_eq!(save(&view, dir.path().join(name)).unwrap_err().kind(), ErrorKind::InvalidArgument, "{name}");
    }
    // A folder in the file's place makes the rename fail after everything was written.
    fs::create_dir_all(dir.path().join("d.png/full")).unwrap();
    assert_eq!(save(&view, dir.path().join("d.png")).unwrap_err().kind(), ErrorKind::Io);
    let error = save(&view, dir.path().join("none/e.png")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("e.png"), "{error}");
    // A side beyond what WebP can hold fails before anything is written.
    let wide = vec![0; 16_385];
    let wide = ImageView::new(&wide, 16_385, 1, 16_385, PixelFormat::Gray8).unwrap();
    assert_eq!(save(&wide, dir.path().join("f.webp")).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(names(), ["a.PNG", "b.out", "d.png"]);
}

// Anything at all.

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(
        head in prop::sample::select(vec![
            &b""[..], b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*",
            b"RIFF\x80\0\0\0WEBPVP8 ", b"RIFF\x80\0\0\0WEBPVP8L", b"\0\0\0\x14ftypavif\0\0\0\0avif",
        ]),
        body in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let _ = Picture::decode(&[head, &body].concat());
    }

    #[test]
    fn changed_files_never_panic(
        which in 0usize..1000,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let cases = lines("files.txt");
        let name = &cases[which % cases.len()][0];
        let mut bytes = read(&format!("files/{name}"));
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        // A small limit keeps the headers that lie about their size from costing time.
        let mut limits = DecodeLimits::default();
        limits.max_pixels = 1 << 20;
        if let Ok(picture) = Picture::decode_with(&bytes, &limits) {
            prop_assert_eq!(picture.pixels().len(), picture.width() * picture.height() * 3);
        }
    }

    #[test]
    fn resize_takes_any_size(w in 1usize..400, h in 1usize..400, side in 1usize..70, seed in 0usize..99) {
        let data = noise(w, h, 3, seed);
        let out = resize(&ImageView::new(&data, w, h, w * 3, PixelFormat::Rgb8).unwrap(), side);
        prop_assert_eq!(out.len(), side * side * 3);
        // An average never leaves the range of what it averages, but for the rounding of fixed-point weights.
        let (low, high) = (*data.iter().min().unwrap(), *data.iter().max().unwrap());
        prop_assert!(out.iter().all(|&v| v >= low.saturating_sub(1) && v <= high.saturating_add(1)));
    }
}
