//! Moving and mixing rows.

use super::arguments::{RowsArgs, dim};
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
    let args = RowsArgs {
        a: view(a, rows, width),
        // Rows of `b` that no row of `a` meets need not exist.
        b: view(b, b_rows.min(rows), width),
        y: y.output(&ops.device, rows * width)?,
        rows: dim(rows),
        width: dim(width),
        lda: dim(a.stride),
        ldb: dim(b.stride),
        b_rows: dim(b_rows),
        ..RowsArgs::default()
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
    let args = RowsArgs {
        a: view(x, rows, width),
        y: y.output_at(&ops.device, offset, rows * width)?,
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
    let address = y.output(&ops.device, elements + ids.len())?;
    y.write(elements, ids)?;
    let args = RowsArgs {
        a: table.address(),
        b: address + (elements * size_of::<f32>()) as u64,
        y: address,
        rows: dim(ids.len()),
        width: dim(table.k),
        lda: dim(table.ld),
        ..RowsArgs::default()
    };
    let kernel = match ops.precision {
        Precision::F32 => &ops.functions.gather_f32,
        Precision::Bf16 => &ops.functions.gather_bf16,
    };
    ops.device.launch(kernel, ops.blocks(elements, kernel.threads), &args)
}

pub(super) fn mean_rows(ops: &CudaOps, x: View<'_, Act>, [rows, width]: [usize; 2], y: &mut Act) -> Result<()> {
    assert!(rows > 0, "no rows have no mean");
    let args = RowsArgs {
        a: view(x, rows, width),
        y: y.output(&ops.device, width)?,
        rows: dim(rows),
        width: dim(width),
        lda: dim(x.stride),
        ..RowsArgs::default()
    };
    ops.device.launch(&ops.functions.mean_rows, ops.blocks(width, ops.functions.mean_rows.threads), &args)
}
