// The settings of the API. Some change what is seen here, the others what the code and the calls made with it ask for.

import { $, el } from './dom.js';
import { changed, DEFAULTS, on, state } from './state.js';

/** A setting: its name, its title, what it is about in words, and its form. */
const HERE = [
  ['max_masks', 'Most results', 'The best are kept.', { min: 1, max: 32, step: 1 }],
  ['mask_threshold', 'Edge', 'Lower makes shapes larger, higher makes them tighter.', { min: 0.05, max: 0.95, step: 0.05 }],
  ['multimask', 'Three guesses for objects', 'For clicks that can mean a part or the whole.', 'switch'],
  ['output_format', 'Format of pictures', 'For what you save, and in the API.', [['png', 'PNG'], ['jpeg', 'JPEG'], ['webp', 'WebP']]],
];
const CODE = [
  ['answer', 'Answer', 'What the call returns.', [['image', 'Pictures'], ['image-rle', 'Run lengths']]],
  ['apply_mask', 'Draw masks on the picture', 'Off returns masks in white on black.', 'switch'],
  ['mask_style', 'Drawn as', 'How a mask is shown on the picture.', [['overlay', 'Tint'], ['cutout', 'Cut-out']]],
  ['rle_format', 'Run lengths as', 'Pairs of start and length, or COCO\u2019s form.', [['fal', 'Pairs'], ['coco', 'COCO']]],
  ['sync_mode', 'Pictures inside the answer', 'As data URIs instead of links.', 'switch'],
  ['include_scores', 'Scores', 'How sure the model is of each.', 'switch'],
  ['include_boxes', 'Boxes', 'Where each one is.', 'switch'],
];

function control(name, form) {
  const id = `set-${name}`;
  const value = state.settings[name];
  const set = (v) => {
    state.settings[name] = v;
    changed('settings');
  };
  const described = { id, 'aria-describedby': `${id}-about` };
  if (form === 'switch') {
    return el('input', { type: 'checkbox', role: 'switch', checked: value, onchange: (e) => set(e.target.checked), ...described });
  }
  if (Array.isArray(form)) {
    const options = form.map(([v, title]) => el('option', { value: v, selected: v === value }, title));
    return el('select', { onchange: (e) => set(e.target.value), ...described }, ...options);
  }
  const onchange = (e) => {
    const n = Number(e.target.value);
    const kept = Number.isFinite(n) && e.target.value !== '' ? Math.min(form.max, Math.max(form.min, n)) : DEFAULTS[name];
    const whole = form.step === 1 ? Math.round(kept) : kept;
    e.target.value = whole;
    set(whole);
  };
  return el('input', { type: 'number', min: form.min, max: form.max, step: form.step, value, onchange, ...described });
}

function draw() {
  const fill = (id, list) =>
    $(id).replaceChildren(
      ...list.map(([name, title, about, form]) =>
        el(
          'div',
          { className: 'setting' },
          el('label', { for: `set-${name}` }, title),
          control(name, form),
          el('p', { id: `set-${name}-about` }, about),
        ),
      ),
    );
  fill('settings-here', HERE);
  fill('settings-code', CODE);
}

export function setUpSettings() {
  draw();
  $('settings-reset').onclick = () => {
    state.settings = { ...DEFAULTS };
    draw();
    changed('settings');
  };
  // What has no meaning with the answer that is chosen cannot be set.
  const dim = () => {
    const { answer, apply_mask: apply } = state.settings;
    for (const name of ['apply_mask', 'sync_mode']) $(`set-${name}`).disabled = answer !== 'image';
    $('set-mask_style').disabled = answer !== 'image' || !apply;
    $('set-rle_format').disabled = answer !== 'image-rle';
  };
  on('settings', dim);
  dim();
}
