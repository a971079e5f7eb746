//! What the tests of several files share, and the operations that have no file of tests of their own.

use super::isa::Isa;
use super::pool::Pool;
use super::*;
use crate::error::ErrorKind;
use crate::image::PixelFormat;
use crate::weights::Dtype;

/// Reproducible values in -1..1 (SplitMix64).
pub fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Three threads on every instruction set this processor has.
pub fn pools() -> Vec<(Pool, Isa)> {
    Isa::available().into_iter().map(|isa| (Pool::new(Some(3)).unwrap(), isa)).collect()
}

/// A back end on every instruction set this processor has.
fn back_ends() -> Vec<CpuOps> {
    Isa::available().into_iter().map(|isa| CpuOps::new(Some(3), isa).unwrap()).collect()
}

fn buffer(values: &[f32]) -> Buffer {
    let mut memory = Memory::zeroed(values.len()).unwrap();
    memory.copy_from_slice(values);
    Buffer(memory)
}

fn layer(ops: &CpuOps, w: &[f32], b: Option<&[f32]>, n: usize, k: usize) -> Linear<CpuOps> {
    let w = ops.matrix(&[HostTensor::from_f32("w", &[n, k], w.to_vec()).unwrap()]).unwrap();
    Linear { w, b: b.map(buffer), n, k }
}

#[track_caller]
fn close(got: &[f32], want: &[f64], tolerance: f64) {
    assert!(got.len() >= want.len());
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(got) - want).abs() <= tolerance, "[{i}]: {got} for {want}");
    }
}

#[test]
fn convolution_by_definition() {
    for ops in back_ends() {
        for (h, w, cin, cout) in [(1, 1, 3, 2), (5, 4, 3, 5), (6, 9, 40, 33), (2, 2, 16, 1)] {
            let (x, weights, bias) = (noise(h * w * cin, 1), noise(cout * 9 * cin, 2), noise(cout, 3));
            let mut want = Vec::new();
            for (y, x_at) in (0..h * w).map(|i| (i / w, i % w)) {
                for o in 0..cout {
                    let mut sum = f64::from(bias[o]);
                    for (ky, kx) in (0..9).map(|i| (i / 3, i % 3)) {
                        let (Some(sy), Some(sx)) = ((y + ky).checked_sub(1), (x_at + kx).checked_sub(1)) else {
                            continue;
                        };
                        if sy < h && sx < w {
                            for c in 0..cin {
                                let weight = weights[((o * 3 + ky) * 3 + kx) * cin + c];
                                sum += f64::from(weight) * f64::from(x[(sy * w + sx) * cin + c]);
                            }
                        }
                    }
                    want.push(sum);
                }
            }
            let mut y = Buffer::default();
            ops.conv3x3(&buffer(&x), &layer(&ops, &weights, Some(&bias), cout, 9 * cin), h, w, &mut y).unwrap();
            close(&y.0, &want, 2e-7 * (9 * cin + 1) as f64);
        }
    }
}

#[test]
fn transposed_convolution_by_definition() {
    for ops in back_ends() {
        for (h, w, cin, cout) in [(1, 1, 2, 1), (3, 5, 7, 6), (6, 6, 20, 35)] {
            let (x, weights, bias) = (noise(h * w * cin, 1), noise(4 * cout * cin, 2), noise(4 * cout, 3));
            let add = noise(4 * h * w * (cout + 2) + 1, 4);
            let mut want = Vec::new();
            for i in 0..4 * h * w {
                let (y, x_at) = (i / (2 * w), i % (2 * w));
                for o in 0..cout {
                    let n = (y % 2 * 2 + x_at % 2) * cout + o;
                    let pixel = y / 2 * w + x_at / 2;
                    let dot = (0..cin).map(|c| f64::from(x[pixel * cin + c]) * f64::from(weights[n * cin + c]));
                    let sum = dot.sum::<f64>() + f64::from(bias[n]) + f64::from(add[1 + i * (cout + 2) + o]);
                    want.push(sum.max(0.0));
                }
            }
            let add = buffer(&add);
            let view = View { buf: &add, offset: 1, stride: cout + 2 };
            let ep = Epilogue { act: Activation::Relu, ..Epilogue::add(view) };
            let mut y = Buffer::default();
            let l = layer(&ops, &weights, Some(&bias), 4 * cout, cin);
            ops.deconv2x2(&buffer(&x), &l, h, w, ep, &mut y).unwrap();
            close(&y.0, &want, 2e-7 * (cin + 2) as f64);
        }
    }
}

#[test]
fn linear_takes_views_and_epilogues() {
    for ops in back_ends() {
        let (x, w, b) = (buffer(&noise(200, 1)), noise(5 * 6, 2), noise(5, 3));
        let l = layer(&ops, &w, Some(&b), 5, 6);
        let view = View { buf: &x, offset: 4, stride: 9 };
        let skip = View::skip(&x, 2, 5);
        let ep = Epilogue { act: Activation::Relu, ..Epilogue::add(skip) };
        let mut y = Buffer::default();
        ops.linear(view, &l, 20, ep, &mut y).unwrap();
        let mut want = Vec::new();
        for (i, j) in (0..100).map(|i| (i / 5, i % 5)) {
            let dot: f64 = (0..6).map(|k| f64::from(x.0[4 + i * 9 + k]) * f64::from(w[j * 6 + k])).sum();
            want.push((dot + f64::from(b[j]) + f64::from(x.0[10 + i * 5 + j])).max(0.0));
        }
        close(&y.0, &want, 1e-6);
    }
}

#[test]
fn rows_are_added_copied_and_averaged() {
    for ops in back_ends() {
        let (a, b) = (buffer(&noise(7 * 40, 1)), buffer(&noise(3 * 37, 2)));
        let mut y = Buffer::default();
        ops.add(View { buf: &a, offset: 3, stride: 40 }, View::new(&b, 37), 3, 7, 37, &mut y).unwrap();
        for (r, c) in (0..7 * 37).map(|i| (i / 37, i % 37)) {
            assert_eq!(y.0[r * 37 + c], a.0[3 + r * 40 + c] + b.0[r % 3 * 37 + c]);
        }
        let mut y = buffer(&[1.0, 2.0, 3.0]);
        ops.copy(View::columns(&a, 5, 40), 7, 30, &mut y, 2).unwrap();
        assert_eq!(y.0[..2], [1.0, 2.0]);
        for (r, c) in (0..7 * 30).map(|i| (i / 30, i % 30)) {
            assert_eq!(y.0[2 + r * 30 + c], a.0[r * 40 + 5 + c]);
        }
        let mut y = Buffer::default();
        ops.mean_rows(View::columns(&a, 1, 40), 7, 39, &mut y).unwrap();
        let want: Vec<f64> =
            (0..39).map(|c| (0..7).map(|r| f64::from(a.0[r * 40 + 1 + c])).sum::<f64>() / 7.0).collect();
        close(&y.0, &want, 1e-7);
    }
}

#[test]
fn rows_are_gathered_from_all_types() {
    let ops = &back_ends()[0];
    let values = [1.5f32, -2.0, 0.25, 8.0];
    let f16: Vec<u8> = values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
    let bf16: Vec<u8> = values.iter().flat_map(|&v| half::bf16::from_f32(-v).to_le_bytes()).collect();
    let table = ops
        .matrix(&[
            HostTensor::from_f32("a", &[1, 2], vec![7.0, 9.0]).unwrap(),
            HostTensor::from_bytes("b", &[2, 2], Dtype::F16, f16).unwrap(),
            HostTensor::from_bytes("c", &[2, 2], Dtype::Bf16, bf16).unwrap(),
        ])
        .unwrap();
    let mut y = Buffer::default();
    ops.gather(&table, &[4, 0, 1, 1, 3], &mut y).unwrap();
    assert_eq!(y.0[..10], [-0.25, -8.0, 7.0, 9.0, 1.5, -2.0, 1.5, -2.0, -1.5, 2.0]);
}

#[test]
fn pictures_are_ingested_cut_and_enlarged() {
    for ops in back_ends() {
        let mut y = Buffer::default();
        let pixel = ImageView::new(&[0, 255, 51], 1, 1, 3, PixelFormat::Rgb8).unwrap();
        ops.ingest(&pixel, 1, &mut y).unwrap();
        close(&y.0, &[-1.0, 1.0, -0.6], 1e-7);

        let (h, w, c, p) = (4, 6, 3, 2);
        let x: Vec<f32> = (0..h * w * c).map(|i| i as f32).collect();
        ops.patches(&buffer(&x), h, w, c, p, &mut y).unwrap();
        for patch in 0..6 {
            for (channel, dy, dx) in (0..12).map(|i| (i / 4, i / 2 % 2, i % 2)) {
                let (py, px) = (patch / 3 * 2 + dy, patch % 3 * 2 + dx);
                assert_eq!(y.0[patch * 12 + channel * 4 + dy * 2 + dx], x[(py * w + px) * c + channel]);
            }
        }

        let (oh, ow) = (7, 9);
        let skip = noise(oh * ow * c, 1);
        ops.upsample_add(&buffer(&x), h, w, &buffer(&skip), oh, ow, c, &mut y).unwrap();
        for (i, j) in (0..oh * ow).map(|i| (i / ow, i % ow)) {
            let from = ((i * h / oh) * w + j * w / ow) * c;
            for channel in 0..c {
                let at = (i * ow + j) * c + channel;
                assert_eq!(y.0[at], x[from + channel] + skip[at]);
            }
        }
    }
}

#[test]
fn roi_align_of_a_plane_is_its_value_at_the_bins() {
    let ops = &back_ends()[0];
    // Bilinear samples of a linear function are exact, and a symmetric grid's mean is the value at the bin's centre.
    let (h, w) = (12, 10);
    let x: Vec<f32> = (0..h * w).flat_map(|i| [(i % w) as f32 * 2.0 + (i / w) as f32, 5.0]).collect();
    let mut y = Buffer::default();
    // The second is enlarged to 1 × 1; the third lies outside.
    let boxes = [[1.0, 2.0, 8.5, 9.0], [3.25, 4.0, 3.5, 4.5], [30.0, 30.0, 40.0, 40.0]];
    ops.roi_align(&buffer(&x), h, w, 2, &boxes, 3, &mut y).unwrap();
    let mut want = Vec::new();
    for (x0, y0, bw, bh) in [(1.0, 2.0, 7.5 / 3.0, 7.0 / 3.0), (3.25, 4.0, 1.0 / 3.0, 1.0 / 3.0)] {
        for bin in 0..9 {
            let (cy, cx) = (y0 + (f64::from(bin / 3) + 0.5) * bh, x0 + (f64::from(bin % 3) + 0.5) * bw);
            want.push(2.0 * cx + cy);
        }
        want.extend([5.0; 9]);
    }
    want.extend([0.0; 18]);
    close(&y.0, &want, 1e-5);
    // Half of this one's samples are beyond -1, where upstream samples zero; the rest are clamped to the edge.
    ops.roi_align(&buffer(&x), h, w, 2, &[[-4.0, 2.0, 2.0, 4.0]], 1, &mut y).unwrap();
    // Samples at x = -3.5, -2.5, -1.5, -0.5, 0.5, 1.5 and y = 2.5, 3.5.
    close(&y.0, &[(3.0 * 3.0 + 2.0 * (0.5 + 1.5)) / 6.0, 2.5], 1e-5);
}

#[test]
fn boxes_are_embedded_measured_and_refined() {
    let ops = &back_ends()[0];
    let boxes = buffer(&[0.5, 0.25, 0.5, 0.125, 0.1, 0.9, 0.0, 1.0]);
    let mut y = Buffer::default();
    ops.box_sine(&boxes, 2, 4, &mut y).unwrap();
    // cy of the first box: angles 2π·0.25 and that over 10000^(2/4) = 100.
    let a = std::f64::consts::FRAC_PI_2;
    close(&y.0, &[a.sin(), a.cos(), (a / 100.0).sin(), (a / 100.0).cos()], 1e-7);
    // Its cx.
    close(&y.0[4..], &[0.0, -1.0, (a / 50.0).sin(), (a / 50.0).cos()], 1e-7);

    let (mut dx, mut dy) = (Buffer::default(), Buffer::default());
    ops.box_deltas(&boxes, 2, 4, 2, &mut dx, &mut dy).unwrap();
    let e = |d: f64| d.signum() * ((8.0 * d).abs() + 1.0).log2() / 3.0;
    // x edges 0.25 and 0.75 from the lines 0 and 0.5; y edges 0.1875 and 0.3125 from 0, 0.25, ….
    close(&dx.0, &[e(-0.25), e(-0.75), e(0.25), e(-0.25)], 1e-6);
    close(&dy.0, &[e(-0.1875), e(-0.3125), e(0.0625), e(-0.0625)], 1e-6);

    let delta = buffer(&[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    ops.box_refine(&delta, &boxes, 2, &mut y).unwrap();
    let quarter = 1.0 / (1.0 + 3.0 * (-1.0f64).exp());
    // σ⁻¹ of 0 and 1 is clamped at ε = 10⁻³: ln(ε / 1), hence ε / (1 + ε).
    let edge = 1e-3 / 1.001;
    close(&y.0, &[0.5, quarter, 0.5, 0.125, 0.1, 0.9, edge, 1.0 - edge], 1e-6);
}

#[test]
fn memory_grows_and_keeps() {
    let ops = &back_ends()[0];
    let mut act = Buffer::default();
    ops.upload(&[1.0, 2.0, 3.0], &mut act).unwrap();
    ops.reserve(&mut act, 2).unwrap();
    let mut back = [0.0; 2];
    ops.download(&act, 1, &mut back).unwrap();
    assert_eq!(back, [2.0, 3.0]);
    let error = ops.reserve(&mut act, usize::MAX / 8).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
}
