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
    GemmArgs { x, w, bias, add, y; m, n, k, ldx, ldw, ld_add, act, height, width, channels; ; }
    /// Attention.
    AttentionArgs {
        q, k, v, cos, sin, pad_k, pad_v, by, bx, y;
        ldq, ldk, ldv, heads, head_dim, queries, keys, pattern, height, width, size, first; scale; reserved
    }
    /// Layer and group norm.
    NormArgs { x, gamma, beta, y, partial; rows, width, ldx, act, groups, chunks; eps; reserved }
    /// Moving rows.
    RowsArgs { a, b, y; rows, width, lda, ldb, b_rows, reserved; ; }
    /// Pictures.
    PictureArgs { x, skip, y; height, width, channels, size, out_height, out_width, count, reserved; ; }
    /// Boxes.
    BoxArgs { boxes, delta, y, y2; count, features, height, width; ; }
}

const _: () = assert!(size_of::<GemmArgs>() == 80);
const _: () = assert!(size_of::<AttentionArgs>() == 136);
const _: () = assert!(size_of::<NormArgs>() == 72);
const _: () = assert!(size_of::<RowsArgs>() == 48);
const _: () = assert!(size_of::<PictureArgs>() == 56);
const _: () = assert!(size_of::<BoxArgs>() == 48);

/// A dimension as kernels take it.
pub fn dim(n: usize) -> u32 {
    u32::try_from(n).unwrap_or_else(|_| panic!("expected a dimension below 2³², found {n}"))
}
