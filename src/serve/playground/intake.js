// How pictures come in: dropped, chosen, pasted, by address, or from the samples.

import { call } from './api.js';
import { $, announce, complain, el } from './dom.js';
import { changed, reset, state } from './state.js';

/** The samples, with words that find something in them. The demo model knows the first. */
const SAMPLES = [
  { file: 'shapes.png', title: 'Shapes', alt: 'A drawing of coloured shapes', phrases: ['circle', 'star', 'red heart', 'green square'] },
  { file: 'cat.jpg', title: 'Cat', alt: 'A photograph of a tabby cat', phrases: ['cat', 'eye', 'ear'] },
  { file: 'coffee.jpg', title: 'Coffee', alt: 'A photograph of a cup of coffee with a spoon', phrases: ['cup', 'spoon', 'saucer'] },
];

let coming = null;

/** Sends a picture to the server, which looks at it; resolves once prompts on it are answered at once. */
export async function send(picture) {
  const { signal } = picture.abort;
  const what = `Look at ${picture.name}`;
  const answer = picture.url
    ? await call('/api/images', { what, method: 'POST', json: { image_url: picture.url }, signal })
    : await call('/api/images', { what, method: 'POST', body: picture.file, type: picture.file.type || 'application/octet-stream', signal });
  Object.assign(picture, { id: answer.image_id, width: answer.width, height: answer.height });
  changed('sent');
}

/** Shows a picture, and has the server look at it meanwhile. */
async function take({ file = null, url = null, name, sample = null }) {
  complain('');
  const limit = state.info?.max_body_bytes;
  if (file && limit && file.size > limit) {
    complain(`This file has ${megabytes(file.size)}, and the server takes at most ${megabytes(limit)}.`);
    return;
  }
  coming?.abort.abort();
  const picture = { name, file, url, sample, abort: new AbortController(), id: null, bitmap: null, waiting: 'Looking at the picture…' };
  coming = picture;
  $('welcome').classList.add('busy');
  announce(`Looking at ${name}.`);
  // Nobody may wait for it: then a failure is said here, and nowhere else.
  picture.ready = send(picture);
  picture.ready.catch(() => {});
  try {
    // The browser may not know the format, or not be allowed to fetch: the server shows it as PNG.
    picture.bitmap = file && (await createImageBitmap(file).catch(() => null));
    if (!picture.bitmap) {
      await picture.ready;
      const png = await call(`/api/images/${picture.id}/picture`, { blob: true, signal: picture.abort.signal });
      picture.bitmap = await createImageBitmap(png);
    }
    if (coming !== picture) return;
    picture.width ??= picture.bitmap.width;
    picture.height ??= picture.bitmap.height;
    $('welcome').classList.remove('busy');
    reset(picture);
    await picture.ready;
    if (coming === picture) announce(`${name} is ready. Type what to find, or click on it.`);
  } catch (error) {
    if (coming !== picture) return;
    coming = null;
    $('welcome').classList.remove('busy');
    leave();
    if (error.name !== 'AbortError') complain(error.message);
  }
}

/** Back to where pictures are chosen. */
export function leave() {
  coming?.abort.abort();
  coming = null;
  reset(null);
}

/** Takes the first picture of a list of files. */
function takeFiles(files) {
  const list = [...files];
  const file = list.find((f) => f.type.startsWith('image/')) ?? list[0];
  if (!file) return;
  if (file.type && !file.type.startsWith('image/')) {
    complain(`“${file.name}” is not a picture. JPEG, PNG, WebP, GIF and AVIF files are.`);
    return;
  }
  take({ file, name: file.name || 'pasted picture' });
}

async function takeSample(sample) {
  const file = await fetch(`samples/${sample.file}`).then((r) => r.blob());
  take({ file: new File([file], sample.file, { type: file.type }), name: sample.file, sample });
}

function takeUrl(text) {
  const url = text.trim();
  if (/^data:image\//i.test(url)) {
    take({ url, name: 'picture' });
  } else if (!/^https?:\/\/[^/]/i.test(url)) {
    complain('This is not the address of a picture. It should begin with https://');
  } else if (!state.info?.fetch) {
    complain('This server does not fetch pictures from other places. Start it with --allow-fetch, or save the picture and drop it here.');
  } else {
    take({ url, name: decodeURIComponent(new URL(url).pathname.split('/').pop() || 'picture') });
  }
}

const megabytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MB`;

/** Phrases to try on the picture that is shown. */
export function ideas() {
  if (state.picture?.sample) return state.picture.sample.phrases;
  return state.info?.demo ? SAMPLES[0].phrases : [];
}

function samples() {
  for (const sample of SAMPLES) {
    const image = el('img', { src: `samples/${sample.file}`, alt: sample.alt, width: 176, height: 120 });
    $('samples').append(el('li', {}, el('button', { type: 'button', onclick: () => takeSample(sample) }, image, el('span', {}, sample.title))));
  }
}

/** What is dropped on the page, from files or from other pages. */
function drops() {
  let depth = 0;
  const over = (on) => document.body.classList.toggle('dropping', on);
  addEventListener('dragenter', (event) => {
    event.preventDefault();
    depth += 1;
    over(true);
  });
  addEventListener('dragleave', () => {
    depth = Math.max(0, depth - 1);
    over(depth > 0);
  });
  addEventListener('dragover', (event) => event.preventDefault());
  addEventListener('drop', (event) => {
    event.preventDefault();
    depth = 0;
    over(false);
    if (event.dataTransfer.files.length) takeFiles(event.dataTransfer.files);
    else takeUrl(event.dataTransfer.getData('text/uri-list') || event.dataTransfer.getData('text/plain'));
  });
}

export function setUpIntake() {
  samples();
  drops();
  $('choose').onclick = () => $('file').click();
  $('file').onchange = () => {
    takeFiles($('file').files);
    // The same file may be chosen again.
    $('file').value = '';
  };
  $('address').onsubmit = (event) => {
    event.preventDefault();
    takeUrl($('url').value);
  };
  addEventListener('paste', (event) => {
    if (event.clipboardData.files.length) {
      event.preventDefault();
      takeFiles(event.clipboardData.files);
    } else if (!event.target.closest('input, textarea')) {
      const text = event.clipboardData.getData('text/plain').trim();
      if (/^(https?:|data:image)/i.test(text)) takeUrl(text);
    }
  });
  $('other').onclick = leave;
  $('cancel').onclick = leave;
}
