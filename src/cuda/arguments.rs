//! The kernels' arguments, field by field as in `kernels/tile/arguments.cuh`. Pointers come first and all else has four
//! bytes, so that no compiler pads; both sides assert the sizes. A pointer of 0 is null.

use bytemuck::{Pod, Zeroable};

/// A structure that a kernel takes by value.
pub trait Arguments: Pod {}

macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident { $($pointer:ident),*; $($number:ident),*; $($float:ident),*; $($rest:ident),* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
            pub struct $name {
                $(pub $pointer: u64,)*
                $(pub $number: u32,)*
                $(pub $float: f32,)*
                $(pub $rest: u32,)*
            }
            impl Arguments for $name {}
        )*
    };
}

arguments! {
    /// Matrix products and convolutions.
    GemmArgs {
        x, w, bias, add, y, angles, partial, counters;
        m, n, k, ldx, ldw, ld_add, act, height, width, channels, turned, head_dim, half, splits; ;
    }
    /// Attention.
    AttentionArgs {
        q, k, v, pad_k, pad_v, by, bx, y, partial;
        ldq, ldk, ldv, heads, head_dim, queries, keys, pattern, height, width, size, first, splits; scale;
        half, ld_pad
    }
    /// Layer and group norm.
    NormArgs { x, gamma, beta, y, partial; rows, width, ldx, act, groups, chunks; eps; half }
    /// Moving rows.
    RowsArgs { a, b, y; rows, width, lda, ldb, b_rows, half; ; }
    /// Pictures.
    PictureArgs { x, skip, y; height, width, channels, size, out_height, out_width, count, half; ; }
    /// Boxes.
    BoxArgs { boxes, delta, y, y2; count, features, height, width; ; }
    /// Masks at another size.
    CutArgs {
        x, y, doubtful; height, width, out_height, out_width, line, sigmoid, most; down, across, threshold, close; reserved
    }
}

const _: () = assert!(size_of::<GemmArgs>() == 120);
const _: () = assert!(size_of::<AttentionArgs>() == 136);
const _: () = assert!(size_of::<NormArgs>() == 72);
const _: () = assert!(size_of::<RowsArgs>() == 48);
const _: () = assert!(size_of::<PictureArgs>() == 56);
const _: () = assert!(size_of::<BoxArgs>() == 48);
const _: () = assert!(size_of::<CutArgs>() == 72);

/// Which of a kernel's pointers are to bf16: its left and right input, its addend, its output.
pub const HALF_X: u32 = 1;
pub const HALF_W: u32 = 2;
pub const HALF_ADD: u32 = 4;
pub const HALF_Y: u32 = 8;

/// A dimension as kernels take it.
pub fn dim(n: usize) -> u32 {
    u32::try_from(n).unwrap_or_else(|_| panic!("expected a dimension below 2³², found {n}"))
}
