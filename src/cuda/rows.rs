//! Moving and mixing rows.

use super::arguments::{HALF_W, HALF_X, HALF_Y, RowsArgs, dim};
use super::memory::{Act, Mat, rows as view};
use super::{CudaOps, Precision};
use crate::error::Result;
use crate::ops::View;

pub(super) fn add(
    ops: &CudaOps,
    a: View<'_, Act>,
    b: View<'_, Act>,
    b_rows: usize,
    [rows, width]: [usize; 2],
    y: &mut Act,
) -> Result<()> {
    assert!(b_rows > 0 || rows == 0, "{rows} rows have no row to add");
    // Rows of `b` that no row of `a` meets need not exist.
    let (left, right) = (view(a, rows, width), view(b, b_rows.min(rows), width));
    let to = y.output_as(ops, rows * width)?;
    let args = RowsArgs {
        a: left.address,
        b: right.address,
        y: to.address,
        half: left.flag(HALF_X) | right.flag(HALF_W) | to.flag(HALF_Y),
        rows: dim(rows),
        width: dim(width),
        lda: dim(a.stride),
        ldb: dim(b.stride),
        b_rows: dim(b_rows),
    };
    ops.device.launch(&ops.functions.add, ops.blocks(rows * width, ops.functions.add.threads), &args)
}

pub(super) fn copy(
    ops: &CudaOps,
    x: View<'_, Act>,
    [rows, width]: [usize; 2],
    y: &mut Act,
    offset: usize,
) -> Result<()> {
    let from = view(x, rows, width);
    let to = y.output_at(ops, offset, rows * width)?;
    let args = RowsArgs {
        a: from.address,
        y: to.address,
        half: from.flag(HALF_X) | to.flag(HALF_Y),
        rows: dim(rows),
        width: dim(width),
        lda: dim(x.stride),
        ..RowsArgs::default()
    };
    ops.device.launch(&ops.functions.copy, ops.blocks(rows * width, ops.functions.copy.threads), &args)
}

pub(super) fn gather(ops: &CudaOps, table: &Mat, ids: &[u32], y: &mut Act) -> Result<()> {
    for &id in ids {
        assert!((id as usize) < table.n, "id {id} of a table of {} rows", table.n);
    }
    let elements = ids.len() * table.k;
    let (to, behind) = y.output_with(ops, elements, size_of_val(ids))?;
    y.write_bytes((behind - to.address) as usize, ids)?;
    let table_half = if ops.precision == Precision::Bf16 { HALF_X } else { 0 };
    let args = RowsArgs {
        a: table.address(),
        b: behind,
        y: to.address,
        half: table_half | to.flag(HALF_Y),
        rows: dim(ids.len()),
        width: dim(table.k),
        lda: dim(table.ld),
        ..RowsArgs::default()
    };
    ops.device.launch(&ops.functions.gather, ops.blocks(elements, ops.functions.gather.threads), &args)
}

pub(super) fn mean_rows(ops: &CudaOps, x: View<'_, Act>, [rows, width]: [usize; 2], y: &mut Act) -> Result<()> {
    assert!(rows > 0, "no rows have no mean");
    let from = view(x, rows, width);
    let to = y.output_as(ops, width)?;
    let args = RowsArgs {
        a: from.address,
        y: to.address,
        half: from.flag(HALF_X) | to.flag(HALF_Y),
        rows: dim(rows),
        width: dim(width),
        lda: dim(x.stride),
        ..RowsArgs::default()
    };
    ops.device.launch(&ops.functions.mean_rows, ops.blocks(width, ops.functions.mean_rows.threads), &args)
}
