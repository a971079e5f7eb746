//! Moving and mixing rows.

use super::buffer::{Buffer, Matrix, Rows};
use crate::error::Result;
use crate::ops::View;

pub(super) fn add(
    a: View<'_, Buffer>,
    b: View<'_, Buffer>,
    b_rows: usize,
    rows: usize,
    width: usize,
    y: &mut Buffer,
) -> Result<()> {
    assert!(b_rows > 0 || rows == 0, "{rows} rows have no row to add");
    let a = Rows::new(a, rows, width);
    // Rows of `b` that no row of `a` meets need not exist.
    let b = Rows::new(b, b_rows.min(rows), width);
    let y = y.output(rows * width)?;
    for r in 0..rows {
        for c in 0..width {
            y[r * width + c] = (f64::from(a.row(r)[c]) + f64::from(b.row(r % b_rows)[c])) as f32;
        }
    }
    Ok(())
}

pub(super) fn copy(x: View<'_, Buffer>, rows: usize, width: usize, y: &mut Buffer, offset: usize) -> Result<()> {
    let x = Rows::new(x, rows, width);
    let y = y.output_at(offset, rows * width)?;
    for r in 0..rows {
        y[r * width..][..width].copy_from_slice(x.row(r));
    }
    Ok(())
}

pub(super) fn gather(table: &Matrix, ids: &[u32], y: &mut Buffer) -> Result<()> {
    let width = table.k();
    let y = y.output(ids.len() * width)?;
    for (i, &id) in ids.iter().enumerate() {
        assert!((id as usize) < table.n(), "id {id} of a table of {} rows", table.n());
        y[i * width..][..width].copy_from_slice(table.row(id as usize));
    }
    Ok(())
}

pub(super) fn mean_rows(x: View<'_, Buffer>, rows: usize, width: usize, y: &mut Buffer) -> Result<()> {
    assert!(rows > 0, "no rows have no mean");
    let x = Rows::new(x, rows, width);
    let y = y.output(width)?;
    for c in 0..width {
        y[c] = ((0..rows).map(|r| f64::from(x.row(r)[c])).sum::<f64>() / rows as f64) as f32;
    }
    Ok(())
}
