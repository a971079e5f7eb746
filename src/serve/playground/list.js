// What was found, as a list, and the slider that says how sure the model has to be.

import { $, count, css, el, iconButton, percent } from './dom.js';
import { changed, edit, isBlank, listed, on, state } from './state.js';
import { hover } from './view.js';

/** Side of the small pictures, in pixels of the screen, and in dots. */
const THUMB = 44;
const DOTS = 88;

/** Small pictures by mask: drawing them again for every tick of the slider would show. */
const thumbs = new WeakMap();

/** The instance alone, on its colour. */
function thumb({ mask, colour }) {
  if (thumbs.has(mask)) return thumbs.get(mask);
  const canvas = el('canvas', { width: DOTS, height: DOTS, 'aria-hidden': 'true' });
  canvas.style.background = `rgb(${colour.join(' ')} / 0.22)`;
  const context = canvas.getContext('2d');
  const [x0, y0, x1, y1] = mask.bounds() ?? [0, 0, 1, 1];
  const side = Math.max(x1 - x0, y1 - y0, 1) * 1.1;
  const [left, top] = [(x0 + x1 - side) / 2, (y0 + y1 - side) / 2];
  context.drawImage(state.picture.bitmap, left, top, side, side, 0, 0, DOTS, DOTS);
  const image = context.getImageData(0, 0, DOTS, DOTS);
  for (let y = 0; y < DOTS; y += 1) {
    for (let x = 0; x < DOTS; x += 1) {
      const inside = mask.contains(Math.floor(left + ((x + 0.5) * side) / DOTS), Math.floor(top + ((y + 0.5) * side) / DOTS));
      if (!inside) image.data[4 * (y * DOTS + x) + 3] = 0;
    }
  }
  context.putImageData(image, 0, 0);
  canvas.style.width = `${THUMB}px`;
  thumbs.set(mask, canvas);
  return canvas;
}

function row(f) {
  const hidden = state.hidden.has(f.cover);
  const share = f.area / (f.mask.width * f.mask.height);
  const area = `${count(f.area, 'pixel')}, ${share < 0.01 ? 'under 1\u202f%' : percent(share)} of the picture`;
  const spot = el('span', { className: 'spot' });
  spot.style.background = css(f.colour);
  const refine = f.slot === 'c' && state.info?.objects
    ? iconButton('edit', `Refine ${f.label} with clicks`, () => refineByClicks(f))
    : null;
  const item = el(
    'li',
    { className: hidden ? 'instance hidden' : 'instance', onpointerenter: () => hover(hidden ? null : f.key), onpointerleave: () => hover(null) },
    thumb(f),
    el('div', { className: 'names' }, el('span', { className: 'name' }, spot, f.label), el('span', { className: 'detail', title: area }, `${percent(f.score)} sure · ${count(f.area, 'px', 'px')}`)),
    refine,
    iconButton(hidden ? 'closed' : 'eye', `Show ${f.label}`, () => toggle(f), { 'aria-pressed': String(!hidden) }),
    iconButton('bin', `Delete ${f.label}`, () => remove(f)),
  );
  item.dataset.key = f.key;
  return item;
}

function toggle({ cover }) {
  if (!state.hidden.delete(cover)) state.hidden.add(cover);
  changed('hidden');
}

/** An object goes with what showed it; an instance of a concept is left out of the answer. */
function remove(f) {
  const rank = [...$('instances').children].findIndex((li) => li.dataset.key === f.key);
  edit((doc) => {
    if (f.slot === 'c') doc.removed.push(f.mark);
    else doc.objects = doc.objects.filter((o) => `o${o.id}` !== f.slot);
  });
  // The focus was on what is gone.
  const rows = $('instances').children;
  (rows[Math.min(rank, rows.length - 1)]?.querySelector('button:last-of-type') ?? $('phrase')).focus();
}

/** Makes an object of an instance: its box, to which clicks can be added, in place of the instance. */
function refineByClicks(f) {
  edit((doc) => {
    doc.active = Math.max(0, ...doc.objects.map((o) => o.id)) + 1;
    const { width, height } = state.picture;
    const box = f.box.map((v, i) => Math.min(Math.max(Math.round(v), 0), i % 2 ? height : width));
    doc.objects.push({ id: doc.active, points: [], box });
    doc.removed.push(f.mark);
  });
  $('marks').focus();
}

/** The list, and words about it. */
function draw() {
  if (!state.picture) return;
  const list = listed();
  const focused = document.activeElement?.closest?.('#instances li');
  const [key, which] = focused ? [focused.dataset.key, [...focused.querySelectorAll('button')].indexOf(document.activeElement)] : [];
  $('instances').replaceChildren(...list.map(row));
  if (key) $('instances').querySelector(`[data-key="${key}"]`)?.querySelectorAll('button')[which]?.focus();
  $('save').hidden = list.length === 0;
  $('count').textContent = list.length ? `${list.length} found` : 'Result';
  const concept = Boolean(state.doc.text || state.doc.exemplars.length);
  $('threshold-row').hidden = !concept;
  nothing(list, concept);
  mark();
}

/** What to say where nothing is listed, or nothing of what was described. */
function nothing(list, concept) {
  const { doc, found, waiting, threshold } = state;
  const below = found.filter((f) => f.slot === 'c' && f.score < threshold && !doc.removed.includes(f.mark));
  const words = $('nothing');
  words.replaceChildren();
  // Words that find nothing are said so beside objects that were clicked, too.
  words.hidden = list.length > 0 && (!concept || Boolean(waiting) || list.some((f) => f.slot === 'c'));
  if (words.hidden) return;
  if (waiting) words.append(waiting);
  else if (isBlank(doc)) words.append('What you find appears here.');
  else if (concept && below.length) {
    const best = below[0].score;
    const lower = () => setThreshold(Math.max(0.05, Math.floor(best * 20) / 20));
    words.append(
      `Nothing surer than ${percent(threshold)}. The best guess is ${percent(best)} sure. `,
      el('button', { type: 'button', className: 'link', onclick: lower }, 'Show it'),
    );
  } else if (concept) {
    const hint = state.info?.demo ? 'The demo model knows drawn shapes, such as “circle” or “star”.' : 'Try other words, or click on it.';
    words.append(`Nothing found${doc.text ? ` for “${doc.text}”` : ''}. ${hint}`);
  } else words.append('Nothing is selected.');
}

function setThreshold(value) {
  state.threshold = value;
  $('threshold').value = Math.round(value * 100);
  $('threshold-value').textContent = percent(value);
  changed('threshold');
}

/** Shows in the list what is under the pointer. */
function mark() {
  for (const li of $('instances').children) li.classList.toggle('under', li.dataset.key === state.hover);
}

export function setUpList() {
  on('found doc hidden threshold settings waiting', draw);
  on('hover', mark);
  $('threshold').oninput = () => setThreshold($('threshold').value / 100);
  setThreshold(state.threshold);
}
