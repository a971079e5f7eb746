//! The reference against PyTorch: every operation whose meaning could be read in two ways.
//!
//! Inputs are `ramp(n, a, b)`, in Python
//! `torch.tensor([((i * a + b) % 61 - 30) / 16 for i in range(n)], dtype=torch.float64)`, which f32 holds exactly.
//! Expected values are the expressions above each array, with torch 2.11, torchvision 0.26 and transformers 5.23, rounded
//! to f32. `nchw` stands for `.permute(2, 0, 1)[None]` and pictures come back by the inverse.

use super::{Buffer, ReferenceOps};
use crate::ops::{Activation, Attention, Epilogue, Linear, Norm, Ops, Padding, Pattern, Turn, View};
use crate::weights::HostTensor;

const OPS: ReferenceOps = ReferenceOps;

fn ramp(n: usize, a: usize, b: usize) -> Vec<f32> {
    (0..n).map(|i| (((i * a + b) % 61) as f32 - 30.0) / 16.0).collect()
}

fn buffer(values: &[f32]) -> Buffer {
    let mut b = Buffer::default();
    OPS.upload(values, &mut b).unwrap();
    b
}

fn act(n: usize, a: usize, b: usize) -> Buffer {
    buffer(&ramp(n, a, b))
}

fn layer(n: usize, k: usize) -> Linear<ReferenceOps> {
    let w = OPS.matrix(&[HostTensor::from_f32("w", &[n, k], ramp(n * k, 11, 5)).unwrap()]).unwrap();
    Linear { w, b: Some(act(n, 13, 1)), n, k }
}

fn norm(width: usize) -> Norm<ReferenceOps> {
    Norm { gamma: act(width, 11, 5), beta: act(width, 13, 1), eps: 1e-5, width }
}

/// Runs `f` and compares its output; `eps` is relative to 1 or to the value, whichever is larger.
#[track_caller]
fn check(eps: f32, expected: &[f32], f: impl FnOnce(&mut Buffer)) {
    let mut y = Buffer::default();
    f(&mut y);
    let mut found = vec![0.0; expected.len()];
    OPS.download(&y, 0, &mut found).unwrap();
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() <= eps * expected.abs().max(1.0);
        assert!(close, "element {i}: expected {expected}, found {found}");
    }
}

/// One rounding of either side.
const EXACT: f32 = f32::EPSILON;

#[test]
fn linear_applies_bias_then_add_then_activation() {
    // F.gelu(F.linear(ramp(10, 7, 3).view(2, 5), ramp(15, 11, 5).view(3, 5), ramp(3, 13, 1)) + ramp(6, 5, 2).view(2, 3))
    let expected = [0.120493695, -0.0006191372, -0.16387272, -1.5004936e-07, -0.0006819089, -0.0006277671];
    let (x, add) = (act(10, 7, 3), act(6, 5, 2));
    let ep = Epilogue { act: Activation::Gelu, ..Epilogue::add(View::new(&add, 3)) };
    check(EXACT, &expected, |y| OPS.linear(View::new(&x, 5), &layer(3, 5), 2, ep, y).unwrap());
}

#[test]
fn convolution_pads_with_zeros() {
    // F.conv2d(nchw(ramp(12, 7, 3).view(2, 3, 2)), ramp(36, 11, 5).view(2, 3, 3, 2).permute(0, 3, 1, 2), ramp(2, 13, 1),
    //          padding=1)
    let expected = [
        3.6445312,
        -6.0625,
        -3.4492188,
        4.734375,
        -2.7460938,
        -1.3632812,
        2.703125,
        -0.33203125,
        -0.6640625,
        -0.34375,
        -2.0625,
        -3.3007812,
    ];
    check(EXACT, &expected, |y| OPS.conv3x3(&act(12, 7, 3), &layer(2, 18), 2, 3, y).unwrap());
}

#[test]
fn transposed_convolution_order() {
    // F.conv_transpose2d(nchw(ramp(4, 7, 3).view(1, 2, 2)), ramp(24, 11, 5).view(2, 2, 3, 2).permute(3, 2, 0, 1),
    //                    ramp(3, 13, 1), stride=2)
    let expected = [
        1.9179688,
        -1.3085938,
        -4.5351562,
        1.0,
        -2.2265625,
        -0.6875,
        -0.21484375,
        -1.0351562,
        -1.8554688,
        -0.5859375,
        -1.40625,
        -0.796875,
        0.08203125,
        -3.1445312,
        -1.6054688,
        -0.8359375,
        -4.0625,
        3.9101562,
        -0.95703125,
        -1.7773438,
        -1.1679688,
        -1.328125,
        -2.1484375,
        1.5585938,
    ];
    let mut l = layer(12, 2);
    // Upstream's bias is per output channel; a layer holds it once for each of the four positions.
    l.b = Some(buffer(&ramp(3, 13, 1).repeat(4)));
    check(EXACT, &expected, |y| OPS.deconv2x2(&act(4, 7, 3), &l, 1, 2, Epilogue::NONE, y).unwrap());
}

#[test]
fn windows_pad_and_turn() {
    // Two heads of width 4 on a 3 × 3 grid in windows of 2: `window_partition` of q, k, v (72, then (7, 3), (11, 5),
    // (13, 1)), with ramp(8, 17, 2) and ramp(8, 19, 4) as k and v of padding, `x * cos + rotate_pairwise(x) * sin` with
    // the angles ramp(8, 23, 7).view(4, 2), F.scaled_dot_product_attention, `window_unpartition`.
    let cos = [0.13290195, 1.0, 0.13290195, 0.5918051, 0.87758255, -0.29953352, 0.9058137, 0.5403023];
    let sin = [-0.9911292, 0.0, 0.9911292, -0.8060811, 0.47942555, -0.95408577, -0.42367625, 0.84147096];
    let expected = [
        -0.8352976,
        -0.08370359,
        -0.5205287,
        0.29197136,
        0.80995154,
        0.9427701,
        -1.3775485,
        -0.56504846,
        -0.9600754,
        -0.53768486,
        -0.42250118,
        0.38999882,
        0.9264276,
        0.63037354,
        -1.2610724,
        -0.4485724,
        -0.5173497,
        0.37586764,
        1.269085,
        -1.6501976,
        -0.63989097,
        0.44261357,
        1.5251181,
        -0.8572889,
        -1.7279115,
        -0.9397506,
        -0.206124,
        0.606376,
        1.1723661,
        -0.06956193,
        -1.0151339,
        -0.20263387,
        -1.1213351,
        -0.6259592,
        -0.026312454,
        0.7861875,
        1.3327953,
        -0.32370374,
        -0.8547048,
        -0.042204794,
        -0.082213484,
        0.78260237,
        1.6474183,
        -1.3002659,
        -0.5181705,
        0.44350144,
        1.4051734,
        -1.2812986,
        0.3903667,
        -0.8755226,
        0.058588106,
        -0.24367695,
        -0.52458686,
        0.06829876,
        1.1665654,
        -0.64046186,
        -0.5778322,
        -0.67085516,
        0.38858554,
        -1.0625376,
        1.0502261,
        -1.681871,
        -0.8514103,
        -0.20355007,
        -1.1705734,
        -0.058811095,
        0.28295034,
        -1.6477866,
        -0.57223594,
        0.557632,
        1.6875,
        -0.995132,
    ];
    // Rows of two heads, turned as what projects them is: by a product with the identity, each row by the angles of its
    // position in a window.
    let turned = |rows: &[f32], positions: &[usize]| {
        let identity: Vec<f32> = (0..64).map(|i| f32::from(u8::from(i % 9 == 0))).collect();
        let w = OPS.matrix(&[HostTensor::from_f32("identity", &[8, 8], identity).unwrap()]).unwrap();
        let pair = |&t: &usize| [cos[2 * t], sin[2 * t], cos[2 * t + 1], sin[2 * t + 1]];
        let angles = buffer(&positions.iter().flat_map(pair).collect::<Vec<_>>());
        let (x, mut y) = (buffer(rows), Buffer::default());
        let ep = Epilogue::turn(Turn { angles: &angles, head_dim: 4, columns: 8 });
        OPS.linear(View::new(&x, 8), &Linear { w, b: None, n: 8, k: 8 }, positions.len(), ep, &mut y).unwrap();
        y
    };
    let grid = [0, 1, 0, 2, 3, 2, 0, 1, 0];
    let (q, k, v) = (turned(&ramp(72, 7, 3), &grid), turned(&ramp(72, 11, 5), &grid), act(72, 13, 1));
    let (pad_k, pad_v) = (turned(&ramp(8, 17, 2).repeat(4), &[0, 1, 2, 3]), act(8, 19, 4));
    let mut spec = Attention::full(2, 4, 9, 9);
    let padding = Some(Padding { k: View::new(&pad_k, 8), v: View::new(&pad_v, 8) });
    spec.pattern = Pattern::Windows { height: 3, width: 3, size: 2, padding };
    // Turned queries and keys are rounded to f32, and a score is an inner product of four of them, each up to 2.7 large.
    check(4.0 * EXACT, &expected, |y| {
        OPS.attention(View::new(&q, 8), View::new(&k, 8), View::new(&v, 8), &spec, y).unwrap();
    });
}

#[test]
fn boxes_bias_all_queries_but_the_first() {
    // F.scaled_dot_product_attention of two heads of width 3, attn_mask = `deltas_y.unsqueeze(3) + deltas_x.unsqueeze(2)`
    // as in `_get_rpb_matrix`, of ramp(8, 17, 2) and ramp(8, 19, 4), behind a row of zeros.
    let expected = [
        -1.0180353,
        -0.46939522,
        -0.17594543,
        0.40945333,
        0.5727726,
        -0.5011847,
        1.2742528,
        -1.4685568,
        -0.8131684,
        -0.34313294,
        0.39512274,
        1.0810907,
        1.1038628,
        -1.2881619,
        -0.74496347,
        -0.9834169,
        -0.26309174,
        0.54387933,
    ];
    let (q, k, v) = (act(18, 7, 3), act(24, 11, 5), act(24, 13, 1));
    let (by, bx) = (act(8, 17, 2), act(8, 19, 4));
    let mut spec = Attention::full(2, 3, 3, 4);
    // f32 rounds 1/√3, which torch computes in f64.
    spec.pattern = Pattern::Boxes { height: 2, width: 2, first: 1, by: &by, bx: &bx };
    check(2.0 * EXACT, &expected, |y| {
        OPS.attention(View::new(&q, 6), View::new(&k, 6), View::new(&v, 6), &spec, y).unwrap();
    });
}

#[test]
fn causal_sees_itself_and_before() {
    // F.scaled_dot_product_attention(…, is_causal=True) of two heads of width 2
    let expected = [
        -1.8125,
        -1.0,
        -0.1875,
        0.625,
        0.6220675,
        -1.4213674,
        -0.27167565,
        0.54082435,
        0.42883968,
        -0.31875765,
        -0.72344774,
        0.08905227,
        0.1522794,
        0.07312666,
        -1.286949,
        -0.47444898,
    ];
    let (q, k, v) = (act(16, 7, 3), act(16, 11, 5), act(16, 13, 1));
    let mut spec = Attention::full(2, 2, 4, 4);
    spec.pattern = Pattern::Causal;
    check(2.0 * EXACT, &expected, |y| {
        OPS.attention(View::new(&q, 4), View::new(&k, 4), View::new(&v, 4), &spec, y).unwrap();
    });
}

#[test]
fn norms_use_the_biased_variance() {
    // F.layer_norm(ramp(8, 29, 3).view(2, 4), (4,), ramp(4, 11, 5), ramp(4, 13, 1), 1e-5)
    let expected = [-0.4190824, -1.9603863, 0.018297063, 1.0708936, -3.514015, -0.21049708, -0.3566792, 0.08051523];
    check(EXACT, &expected, |y| {
        OPS.layer_norm(View::new(&act(8, 29, 3), 4), &norm(4), 2, Activation::None, y).unwrap();
    });
    // F.relu(F.group_norm(ramp(12, 7, 3).view(3, 4).t()[None], 2, …))[0].t()
    let expected = [0.0, 0.0, 0.0, 0.4855339, 0.0, 0.0, 0.0, 1.4227461, 0.0, 0.0, 0.015423167, 0.3181746];
    check(EXACT, &expected, |y| OPS.group_norm(&act(12, 7, 3), &norm(4), 2, 3, Activation::Relu, y).unwrap());
}

#[test]
fn upsampling_takes_the_nearest_below() {
    // F.interpolate(ramp(6, 7, 3).view(1, 1, 3, 2), size=(7, 5), mode='nearest') + ramp(35, 11, 5).view(7, 5)
    let expected = [
        -3.25, -2.5625, -1.875, -0.75, -0.0625, 0.1875, -2.9375, -2.25, -1.125, -0.4375, -0.1875, -3.3125, -2.625,
        -1.5, -0.8125, 0.3125, 1.0, -2.125, -1.0, -0.3125, -0.0625, 0.625, -2.5, -1.375, -0.6875, 0.4375, 1.125,
        1.8125, -0.875, -0.1875, 0.0625, 0.75, 1.4375, -1.25, -0.5625,
    ];
    check(EXACT, &expected, |y| OPS.upsample_add(&act(6, 7, 3), 3, 2, &act(35, 11, 5), 7, 5, 1, y).unwrap());
}

#[test]
fn roi_align_inside_small_outside_and_reversed() {
    // torchvision.ops.roi_align(nchw(ramp(60, 7, 3).view(5, 6, 2)).float(), [boxes], 2)
    let boxes = [[0.5, 1.25, 4.75, 3.5], [2.0, 2.0, 2.25, 2.5], [-3.0, -2.5, 3.5, 7.5], [4.0, 3.0, 3.0, 1.0]];
    let expected = [
        -0.5812513,
        0.23771162,
        -0.09548605,
        -0.009155174,
        -0.52847624,
        0.30744755,
        0.34201393,
        0.3418851,
        -0.296875,
        0.140625,
        0.421875,
        0.859375,
        0.140625,
        0.578125,
        0.859375,
        1.296875,
        -0.24375,
        -0.11621094,
        -0.06875,
        -0.11220703,
        -0.06875,
        -0.028320312,
        0.0625,
        0.15029296,
        -0.921875,
        -0.484375,
        -0.203125,
        0.234375,
        -0.484375,
        -0.046875,
        0.234375,
        0.671875,
    ];
    // Upstream sums up to 25 samples in f32.
    check(25.0 * EXACT, &expected, |y| OPS.roi_align(&act(60, 7, 3), 5, 6, 2, &boxes, 2, y).unwrap());
}

const BOXES: [f32; 8] = [0.25, 0.5, 0.125, 0.75, 0.0, 1.0, 0.375, 0.0625];

#[test]
fn box_embedding_order_is_cy_cx_w_h() {
    // Sam3SinePositionEmbedding(num_position_features=6, normalize=True).encode_boxes(boxes)
    let expected = [
        1.2246469e-16,
        -1.0,
        0.14530359,
        0.9893871,
        0.0067683044,
        0.9999771,
        1.0,
        6.123234e-17,
        0.072845325,
        0.99734324,
        0.0033841718,
        0.9999943,
        0.70710677,
        0.70710677,
        0.03644688,
        0.9993356,
        0.0016920882,
        0.99999857,
        -1.0,
        -1.8369701e-16,
        0.21698979,
        0.9761739,
        0.0101523595,
        0.99994844,
        -2.4492937e-16,
        1.0,
        0.287523,
        0.95777375,
        0.013536299,
        0.9999084,
        0.0,
        1.0,
        0.0,
        1.0,
        0.0,
        1.0,
        0.70710677,
        -0.70710677,
        0.109146975,
        0.99402565,
        0.0050762454,
        0.9999871,
        0.38268343,
        0.9238795,
        0.018226467,
        0.9998339,
        0.00084604445,
        0.99999964,
    ];
    check(EXACT, &expected, |y| OPS.box_sine(&buffer(&BOXES), 2, 6, y).unwrap());
}

#[test]
fn box_deltas_are_the_inputs_of_the_bias() {
    // What Sam3DetrDecoder._get_rpb_matrix(boxes, (2, 3)) hands to box_rpb_embed_x and box_rpb_embed_y
    let dx = [
        -0.44064268,
        -0.6024516,
        0.37182572,
        0.07413081,
        0.75767285,
        0.6461998,
        0.44064268,
        -0.44064268,
        0.7897446,
        0.37182572,
        0.98987544,
        0.75767285,
    ];
    let dy = [-0.33333334, -1.0, 0.6666667, -0.6666667, -1.0430944, -1.0698178, -0.7493092, -0.79743916];
    let boxes = buffer(&BOXES);
    check(EXACT, &dx, |x| OPS.box_deltas(&boxes, 2, 2, 3, x, &mut Buffer::default()).unwrap());
    check(EXACT, &dy, |y| OPS.box_deltas(&boxes, 2, 2, 3, &mut Buffer::default(), y).unwrap());
}

#[test]
fn refinement_clamps_the_inverse_sigmoid() {
    // (ramp(8, 7, 3) + inverse_sigmoid(boxes)).sigmoid()
    let expected = [0.058079273, 0.22270013, 0.05961343, 0.67340195, 0.0010633625, 0.9993938, 0.60507923, 0.20865527];
    check(EXACT, &expected, |y| OPS.box_refine(&act(8, 7, 3), &buffer(&BOXES), 2, y).unwrap());
}
