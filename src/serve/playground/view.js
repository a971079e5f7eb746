// Draws the picture and what was found on it, pixel for pixel of the screen.

import { $, percent } from './dom.js';
import { changed, listed, on, state, visible } from './state.js';

/** Width of outlines, in pixels of style sheets. */
const OUTLINE = 2;

/** What is left of the light beside an outline. */
const CASING = 0.4;

/** Least height of the picture, and what is kept free under it for the bar of views, in pixels of style sheets. */
const LOWEST = 320;
const BELOW = 112;

const canvas = $('picture');

/** The bare picture at the size of the canvas. */
let base = null;

/** Pixels of the canvas per pixel of the picture. */
export const scale = () => canvas.width / state.picture.width;

/** Makes the canvas as large as the place for it allows, and draws. */
export function fit() {
  const { picture } = state;
  if (!picture) return;
  const room = $('stage-room').clientWidth;
  // The whole picture is to be seen at once, with the bars over and under it; small ones are not blown up without end.
  const top = $('stage-room').getBoundingClientRect().top + scrollY;
  const height = Math.max(LOWEST, innerHeight - top - BELOW);
  const zoom = Math.min(room / picture.width, height / picture.height, 4);
  const size = { width: Math.max(1, Math.round(picture.width * zoom)), height: Math.max(1, Math.round(picture.height * zoom)) };
  $('stage').style.width = `${size.width}px`;
  $('stage').style.height = `${size.height}px`;
  const dots = Math.min(devicePixelRatio || 1, 2);
  for (const c of [canvas, $('marks')]) {
    c.width = Math.round(size.width * dots);
    c.height = Math.round(size.height * dots);
  }
  base = null;
  draw();
  changed('size');
}

/** The canvas, drawn anew. */
function draw() {
  if (!state.picture) return;
  const context = canvas.getContext('2d', { willReadFrequently: true });
  const { width, height } = canvas;
  if (!base) {
    context.imageSmoothingQuality = 'high';
    context.drawImage(state.picture.bitmap, 0, 0, width, height);
    base = context.getImageData(0, 0, width, height);
  }
  const image = new ImageData(new Uint8ClampedArray(base.data), width, height);
  const dots = width / Math.max(1, canvas.clientWidth);
  // Where nothing is found there is nothing to cut out: the picture stays, to be asked again.
  const view = listed().length ? state.view : 'overlay';
  paint(image, visible(), { view, opacity: state.opacity, hover: state.hover, line: Math.max(1, Math.round(OUTLINE * dots)) });
  context.putImageData(image, 0, 0);
}

/**
 * Paints instances, best first, on the pixels of a picture, which may have another size than the masks.
 * `line` is the width of outlines in pixels; `chequered` puts a pattern where a cut-out is transparent.
 */
export function paint(image, instances, { view, opacity, hover = null, line, chequered = true }) {
  const { data, width, height } = image;
  if (view === 'mask' || view === 'cutout') {
    const union = new Uint8Array(width * height);
    for (const { mask } of instances) mask.raster(width, height).forEach((on, i) => { union[i] |= on; });
    if (view === 'mask') alone(data, union);
    else cut(data, union, width, chequered);
    return;
  }
  // The best are painted last, on top.
  for (const { key, mask, colour } of instances.toReversed()) {
    const raster = mask.raster(width, height);
    let alpha = view === 'overlay' ? opacity : 0;
    if (hover !== null) alpha = key === hover ? Math.min(0.85, Math.max(0.35, alpha + 0.2)) : alpha * 0.5;
    if (alpha > 0) tint(data, raster, colour, alpha);
  }
  for (const { key, mask, colour } of instances.toReversed()) {
    const thick = key === hover ? line * 2 : line;
    outline(data, mask.raster(width, height), width, height, colour, view === 'outline' ? thick * 1.5 : thick);
  }
}

function tint(data, raster, [r, g, b], alpha) {
  const rest = 1 - alpha;
  for (let i = 0, at = 0; i < raster.length; i += 1, at += 4) {
    if (raster[i]) {
      data[at] = data[at] * rest + r * alpha;
      data[at + 1] = data[at + 1] * rest + g * alpha;
      data[at + 2] = data[at + 2] * rest + b * alpha;
    }
  }
}

/**
 * Colours the pixels inside that are no more than `thick` from the border of the mask, or of the picture, and darkens
 * those just outside: so that the line is seen on its own colour, too.
 */
function outline(data, raster, width, height, [r, g, b], thick) {
  const t = Math.max(1, Math.round(thick));
  const casing = Math.max(1, Math.round(thick / 2));
  const set = (at, red, green, blue) => {
    data[at] = red;
    data[at + 1] = green;
    data[at + 2] = blue;
  };
  for (let y = 0, i = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, i += 1) {
      const d = raster[i] ? t : casing;
      const [left, right] = [x < d ? 0 : raster[i - d], x >= width - d ? 0 : raster[i + d]];
      const [up, down] = [y < d ? 0 : raster[i - d * width], y >= height - d ? 0 : raster[i + d * width]];
      if (raster[i]) {
        if (!(left && right && up && down)) set(4 * i, r, g, b);
      } else if (left || right || up || down) {
        set(4 * i, data[4 * i] * CASING, data[4 * i + 1] * CASING, data[4 * i + 2] * CASING);
      }
    }
  }
}

/** White on black. */
function alone(data, union) {
  for (let i = 0; i < union.length; i += 1) data.fill(union[i] * 255, 4 * i, 4 * i + 3);
}

/** The picture where something is; elsewhere nothing, or a pattern that says so. */
function cut(data, union, width, chequered) {
  for (let i = 0; i < union.length; i += 1) {
    if (union[i]) continue;
    if (chequered) data.fill(((i % width) >> 3) + (Math.floor(i / width) >> 3) & 1 ? 0xd4 : 0xf2, 4 * i, 4 * i + 3);
    else data.fill(0, 4 * i, 4 * i + 4);
  }
}

/** The visible instance at these pixels of the picture; the smallest of several, which would be hidden otherwise. */
export function at(x, y) {
  let best = null;
  for (const f of visible()) {
    if (f.mask.contains(Math.floor(x), Math.floor(y)) && (!best || f.area < best.area)) best = f;
  }
  return best;
}

/** Tells everybody what is under the pointer. */
export function hover(key) {
  if (state.hover === key) return;
  state.hover = key;
  changed('hover');
}

export function setUpView() {
  on('picture', fit);
  on('found doc view hidden threshold settings hover', draw);
  new ResizeObserver(fit).observe($('stage-room'));
  addEventListener('resize', fit);
  for (const input of document.querySelectorAll('input[name=view]')) {
    input.onchange = () => {
      state.view = input.value;
      $('opacity').disabled = state.view !== 'overlay';
      changed('view');
    };
  }
  $('opacity').oninput = () => {
    state.opacity = $('opacity').value / 100;
    $('opacity-value').textContent = percent(state.opacity);
    changed('view');
  };
}
