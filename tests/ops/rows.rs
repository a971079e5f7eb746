//! Memory, and moving and mixing rows. All but the mean move or add single numbers, which leaves one right answer.

use sam3::Result;
use sam3::ops::Ops;
use sam3::weights::Dtype;

use super::harness::{Case, EPS, Rng, Rows, Suite, Tolerance, Weight, sizes};

/// `upload`, `reserve` and `download` from within.
struct Memory {
    values: Rows,
    offset: usize,
    len: usize,
}

impl Case for Memory {
    fn op(&self) -> &'static str {
        "download"
    }

    fn shape(&self) -> String {
        format!("{} from {} of {}", self.len, self.offset, self.values.width)
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.len]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let mut buffer = self.values.upload(ops)?;
        // There is room already, so this must not touch the contents.
        ops.reserve(&mut buffer, self.values.width)?;
        ops.reserve(&mut buffer, 1)?;
        let mut part = vec![0.0; self.len];
        ops.download(&buffer, self.offset, &mut part)?;
        ops.upload(&part, &mut y[0])
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }
}

struct Add {
    a: Rows,
    b: Rows,
}

impl Case for Add {
    fn op(&self) -> &'static str {
        "add"
    }

    fn shape(&self) -> String {
        format!("a {}, b {}", self.a.text(), self.b.text())
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.a.rows * self.a.width]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let (a, b) = (self.a.operand(ops)?, self.b.operand(ops)?);
        ops.add(self.a.view(&a), self.b.view(&b), self.b.rows, self.a.rows, self.a.width, &mut y[0])
    }

    /// A sum of two f32 rounded once; rounding it to f64 on the way changes nothing, since 53 ≥ 2·24 + 2.
    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }
}

/// Copies one after another into a growing buffer, the way token sequences are put together.
struct Concatenate {
    parts: Vec<Rows>,
}

impl Case for Concatenate {
    fn op(&self) -> &'static str {
        "copy"
    }

    fn shape(&self) -> String {
        self.parts.iter().map(Rows::text).collect::<Vec<_>>().join(", ")
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.parts.iter().map(|p| p.rows * p.width).sum()]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let mut offset = 0;
        for part in &self.parts {
            let x = part.operand(ops)?;
            ops.copy(part.view(&x), part.rows, part.width, &mut y[0], offset)?;
            offset += part.rows * part.width;
        }
        Ok(())
    }

    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }
}

struct Gather {
    table: Weight,
    ids: Vec<u32>,
}

impl Case for Gather {
    fn op(&self) -> &'static str {
        "gather"
    }

    fn shape(&self) -> String {
        format!("{} of {}", self.ids.len(), self.table.text())
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.ids.len() * self.table.k]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        ops.gather(&self.table.matrix(ops)?, &self.ids, &mut y[0])
    }

    /// Widening F16 and BF16 is exact.
    fn tolerance(&self) -> Tolerance {
        Tolerance::EXACT
    }
}

struct Mean {
    x: Rows,
}

impl Case for Mean {
    fn op(&self) -> &'static str {
        "mean_rows"
    }

    fn shape(&self) -> String {
        self.x.text()
    }

    fn outputs(&self) -> Vec<usize> {
        vec![self.x.width]
    }

    fn run<O: Ops>(&self, ops: &O, y: &mut [O::Act]) -> Result<()> {
        let x = self.x.operand(ops)?;
        ops.mean_rows(self.x.view(&x), self.x.rows, self.x.width, &mut y[0])
    }

    /// The inner product with `1/rows`.
    fn tolerance(&self) -> Tolerance {
        let sum = Tolerance::inner(self.x.rows, self.x.max(), 1.0 / self.x.rows as f64);
        Tolerance { abs: sum.abs, rel: sum.rel + EPS }
    }
}

pub fn all<O: Ops>(suite: &mut Suite<O>) {
    let rng = &mut Rng::new(6);
    for len in sizes() {
        let values = Rows::packed(1, len, || rng.signed());
        let offset = rng.below(len);
        let len = 1 + rng.below(len - offset);
        suite.check(&Memory { values, offset, len });
    }
    for width in sizes() {
        for rows in [1, 2, 3, 7, 16, 33] {
            let a = Rows::loose(rng, rows, width, Rng::signed);
            // One row for all, a period that divides the rows or does not, a row each, and more than are needed.
            for b_rows in [1, 2, 3, rows, rows + 1] {
                let b = Rows::loose(rng, b_rows, width, Rng::signed);
                suite.check(&Add { a: a.clone(), b });
            }
            suite.check(&Mean { x: a });
        }
        let count = 1 + rng.below(4);
        let parts = (0..count).map(|_| {
            let rows = rng.below(6);
            Rows::loose(rng, rows, width, Rng::signed)
        });
        suite.check(&Concatenate { parts: parts.chain([Rows::packed(1, width, || 0.5)]).collect() });
        for dtype in [Some(Dtype::F32), Some(Dtype::F16), Some(Dtype::Bf16), None] {
            let n = 1 + rng.below(40);
            let parts = 1 + rng.below(3);
            let table = Weight::new(rng, [n, width], dtype, parts, false, Rng::signed);
            let mut ids = vec![0, n as u32 - 1];
            ids.extend((0..rng.below(9)).map(|_| rng.below(n) as u32));
            suite.check(&Gather { table, ids });
        }
    }
    let table = Weight::new(rng, [3, 8], None, 1, false, Rng::signed);
    suite.check(&Gather { table, ids: Vec::new() });
    let [a, b] = [0; 2].map(|_| Rows::packed(0, 8, || 0.0));
    suite.check(&Add { a, b });
    // Position embeddings over the picture, the mean over its tokens, and over a phrase.
    let a = Rows::loose(rng, 600, 1024, Rng::signed);
    let b = Rows::loose(rng, 24, 1024, Rng::signed);
    suite.check(&Add { a, b });
    suite.check(&Mean { x: Rows::loose(rng, 5184, 256, Rng::signed) });
    suite.check(&Mean { x: Rows::loose(rng, 32, 256, Rng::signed) });
}
