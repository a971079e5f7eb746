// Masks from run lengths, at the size of the picture, and the forms in which they leave the page.

/** A mask: for every row the runs of pixels inside, each from `x0` up to but not including `x1`. */
export class Mask {
  /** From `start length` pairs, one-based, row by row. */
  constructor(pairs, width, height) {
    this.width = width;
    this.height = height;
    this.pairs = pairs;
    const numbers = pairs ? pairs.split(' ').map(Number) : [];
    const runs = [];
    // The first run of each row; runs are in order, so that a row ends where the next begins.
    this.first = new Uint32Array(height + 1);
    for (let i = 0; i + 1 < numbers.length; i += 2) {
      let at = numbers[i] - 1;
      const end = at + numbers[i + 1];
      // A run may go on in the next row.
      while (at < end) {
        const row = Math.floor(at / width);
        const stop = Math.min(end, (row + 1) * width);
        runs.push(at - row * width, stop - row * width);
        this.first[row + 1] += 1;
        at = stop;
      }
    }
    for (let row = 0; row < height; row += 1) this.first[row + 1] += this.first[row];
    this.runs = Uint32Array.from(runs);
  }

  /** Whether the pixel at these whole coordinates is inside. */
  contains(x, y) {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return false;
    for (let r = this.first[y]; r < this.first[y + 1]; r += 1) {
      if (x >= this.runs[2 * r] && x < this.runs[2 * r + 1]) return true;
    }
    return false;
  }

  /** `[x0, y0, x1, y1]` around all pixels inside, which is not the box that the model names; null without any. */
  bounds() {
    let [x0, y0, x1, y1] = [this.width, this.height, 0, 0];
    for (let y = 0; y < this.height; y += 1) {
      const [from, to] = [this.first[y], this.first[y + 1]];
      if (from === to) continue;
      x0 = Math.min(x0, this.runs[2 * from]);
      x1 = Math.max(x1, this.runs[2 * to - 1]);
      y0 = Math.min(y0, y);
      y1 = y + 1;
    }
    return x1 > x0 ? [x0, y0, x1, y1] : null;
  }

  /** One byte per pixel of a picture of another size, 1 inside: each pixel is the nearest one here. */
  raster(width, height) {
    if (this.cached?.width === width && this.cached?.height === height) return this.cached.data;
    const data = new Uint8Array(width * height);
    const [sx, sy] = [width / this.width, height / this.height];
    for (let y = 0; y < height; y += 1) {
      const row = Math.min(this.height - 1, Math.floor((y + 0.5) / sy));
      for (let r = this.first[row]; r < this.first[row + 1]; r += 1) {
        // Pixels whose centres lie in the run.
        const from = Math.max(0, Math.ceil(this.runs[2 * r] * sx - 0.5));
        const to = Math.min(width, Math.ceil(this.runs[2 * r + 1] * sx - 0.5));
        if (to > from) data.fill(1, y * width + from, y * width + to);
      }
    }
    this.cached = { width, height, data };
    return data;
  }

  /** COCO's form: `{ size: [height, width], counts }` with compressed counts. */
  coco() {
    const { width, height } = this;
    const data = new Uint8Array(width * height);
    for (let y = 0; y < height; y += 1) {
      for (let r = this.first[y]; r < this.first[y + 1]; r += 1) data.fill(1, y * width + this.runs[2 * r], y * width + this.runs[2 * r + 1]);
    }
    const counts = [];
    let [inside, length] = [0, 0];
    for (let x = 0; x < width; x += 1) {
      for (let at = x; at < data.length; at += width) {
        if (data[at] === inside) {
          length += 1;
        } else {
          counts.push(length);
          [inside, length] = [data[at], 1];
        }
      }
    }
    counts.push(length);
    return { size: [height, width], counts: compress(counts) };
  }
}

/**
 * Counts as COCO's text: each as its difference to the one two before it, in groups of five bits, the lowest first, a
 * sixth bit saying that more follow, plus 48 to be printable.
 */
export function compress(counts) {
  let text = '';
  counts.forEach((n, i) => {
    let rest = i > 2 ? n - counts[i - 2] : n;
    for (;;) {
      const group = rest & 0x1f;
      rest >>= 5;
      const more = group & 0x10 ? rest !== -1 : rest !== 0;
      text += String.fromCharCode(group + (more ? 0x20 : 0) + 48);
      if (!more) break;
    }
  });
  return text;
}
