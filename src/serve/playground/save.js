// What leaves the page: pictures and data of the visible instances, as files or on the clipboard.

import { $, announce, complain, said } from './dom.js';
import { state, visible } from './state.js';
import { paint } from './view.js';

/** Quality of JPEG and WebP files, the server's. */
const QUALITY = 0.95;

/** Pixels of the longer side for each pixel of an outline in saved pictures. */
const LINE = 400;

/** The picture at its own size, painted. */
function painted(view) {
  const { bitmap, width, height } = state.picture;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0, width, height);
  const image = context.getImageData(0, 0, width, height);
  const line = Math.max(2, Math.round(Math.max(width, height) / LINE));
  paint(image, visible(), { view, opacity: state.opacity, line, chequered: false });
  context.putImageData(image, 0, 0);
  return canvas;
}

/** The cut-out without the emptiness around it. */
function trimmed(canvas) {
  const boxes = visible().map((f) => f.mask.bounds()).filter(Boolean);
  if (boxes.length === 0) return canvas;
  const [left, top] = [0, 1].map((i) => Math.min(...boxes.map((b) => b[i])));
  const [right, bottom] = [2, 3].map((i) => Math.max(...boxes.map((b) => b[i])));
  const out = new OffscreenCanvas(right - left, bottom - top);
  out.getContext('2d').drawImage(canvas, -left, -top);
  return out;
}

/** A picture as a file. What can be transparent never becomes JPEG, which cannot. */
async function picture(view, format) {
  let canvas = painted(view);
  if (view === 'cutout') canvas = trimmed(canvas);
  const kind = view === 'cutout' && format === 'jpeg' ? 'png' : format;
  const blob = await canvas.convertToBlob({ type: `image/${kind}`, quality: QUALITY });
  return { blob, ending: { 'image/jpeg': 'jpg', 'image/webp': 'webp' }[blob.type] ?? 'png' };
}

/** COCO's document of the instances: one category for the words, one for everything that was clicked. */
function coco() {
  const { name, width, height } = state.picture;
  const names = [...new Set(visible().map(category))];
  return {
    images: [{ id: 1, file_name: name, width, height }],
    categories: names.map((n, i) => ({ id: i + 1, name: n })),
    annotations: visible().map((f, i) => {
      const [x0, y0, x1, y1] = f.box;
      return {
        id: i + 1,
        image_id: 1,
        category_id: names.indexOf(category(f)) + 1,
        bbox: [x0, y0, x1 - x0, y1 - y0],
        area: f.area,
        segmentation: f.mask.coco(),
        iscrowd: 0,
        score: f.score,
      };
    }),
  };
}

const category = (f) => (f.slot === 'c' && state.doc.text) || 'object';

/** Run lengths as the API sends them, and what one needs to read them. */
function runs() {
  const { width, height } = state.picture;
  const list = visible();
  const shares = ([x0, y0, x1, y1]) => [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height];
  return { rle: list.map((f) => f.mask.pairs), scores: list.map((f) => f.score), boxes: list.map((f) => shares(f.box)), width, height };
}

/** What can be had: a name for the file, and how it is made. */
const KINDS = {
  shown: { suffix: 'segmented', make: () => picture(state.view, state.settings.output_format) },
  mask: { suffix: 'mask', make: () => picture('mask', state.settings.output_format) },
  cutout: { suffix: 'cutout', make: () => picture('cutout', state.settings.output_format) },
  coco: { suffix: 'coco', text: () => JSON.stringify(coco(), null, 1) },
  rle: { suffix: 'rle', text: () => JSON.stringify(runs(), null, 1) },
};

const stem = () => state.picture.name.replace(/\.[^.]*$/, '') || 'picture';

async function download(kind, button) {
  const { suffix, make, text } = KINDS[kind];
  const { blob, ending } = make ? await make() : { blob: new Blob([text()], { type: 'application/json' }), ending: 'json' };
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = `${stem()}-${suffix}.${ending}`;
  link.click();
  // The browser has taken it by then.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  announce(`${link.download} saved`);
  said(button, 'Saved');
}

async function copy(kind, button) {
  const { make, text } = KINDS[kind];
  if (make) {
    // The clipboard takes PNG alone.
    const png = picture(kind === 'shown' ? state.view : kind, 'png').then(({ blob }) => blob);
    await navigator.clipboard.write([new ClipboardItem({ 'image/png': png })]);
  } else {
    await navigator.clipboard.writeText(text());
  }
  said(button, 'Copied');
}

export function setUpSave() {
  const run = (f, refused) => (event) => {
    const none = visible().length === 0 && 'Nothing is visible, so there is nothing to save.';
    if (none) complain(none);
    else f($('kind').value, event.currentTarget).catch((error) => complain(`${refused} ${error.message}`));
  };
  $('download').onclick = run(download, 'This could not be saved.');
  $('copy').onclick = run(copy, 'The browser does not let this page copy.');
}
