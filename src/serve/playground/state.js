// What the parts of the page share: the picture, what was asked of it, what was found, how it is shown.
//
// `state.doc` is what was asked, and the only thing that undo and redo know; it changes through `edit` alone. Parts
// listen to topics with `on`, and say what they changed with `changed`.

/** The colours of instances: those in which the server paints masks. */
export const PALETTE = [
  [0x1e, 0x90, 0xff], [0xff, 0x9f, 0x0a], [0x5e, 0xff, 0xe8], [0xe7, 0x00, 0x58],
  [0xff, 0xf5, 0x8c], [0x5c, 0x17, 0xff], [0xe8, 0xad, 0xff], [0xaa, 0x14, 0xa0],
];

/** Instances of concepts below this score are never asked for: the slider goes no lower. */
export const FLOOR = 0.05;

/** Most steps that can be undone. */
const DEPTH = 200;

/** Nothing asked yet. `active` is the object that clicks belong to. */
function blank() {
  return { text: '', exemplars: [], objects: [], active: 1, removed: [] };
}

/** The settings of the API, as its documents have them, but for masks: all are wanted here. */
export const DEFAULTS = {
  max_masks: 32,
  mask_threshold: 0.5,
  multimask: false,
  output_format: 'png',
  answer: 'image',
  apply_mask: true,
  mask_style: 'overlay',
  rle_format: 'fal',
  sync_mode: false,
  include_scores: true,
  include_boxes: true,
};

export const state = {
  /** What `/api/info` says. */
  info: null,
  /** `{ name, bitmap, width, height, file, url, sample, id, ready }`; `ready` resolves once the server has the picture. */
  picture: null,
  doc: blank(),
  past: [],
  future: [],
  tool: 'include',
  view: 'overlay',
  opacity: 0.45,
  threshold: 0.5,
  settings: { ...DEFAULTS },
  /**
   * All instances, prompt by prompt, the best first within each:
   * `{ key, mark, cover, slot, label, score, box, area, mask, colour }`.
   */
  found: [],
  /** The `cover` of every instance that is not to be seen. */
  hidden: new Set(),
  /** The key of the instance under the pointer, or null. */
  hover: null,
  /** What the page waits for, in words, or an empty text. */
  waiting: '',
};

const listeners = new Map();

/** Calls `f` whenever one of `topics` (words with spaces between) has changed. */
export function on(topics, f) {
  for (const topic of topics.split(' ')) listeners.set(topic, [...(listeners.get(topic) ?? []), f]);
}

/** Tells whoever listens to one of `topics`, each listener once. */
export function changed(topics) {
  new Set(topics.split(' ').flatMap((topic) => listeners.get(topic) ?? [])).forEach((f) => f());
}

/** Changes the document: `change` gets it, and may return false to say that nothing happened. */
export function edit(change) {
  const before = structuredClone(state.doc);
  if (change(state.doc) === false) return;
  state.past.push(before);
  if (state.past.length > DEPTH) state.past.shift();
  state.future = [];
  changed('doc');
}

export function undo() {
  travel(state.past, state.future);
}

export function redo() {
  travel(state.future, state.past);
}

function travel(from, to) {
  if (from.length === 0) return;
  to.push(state.doc);
  state.doc = from.pop();
  changed('doc');
}

/** Takes everything back that was asked; undo brings it again. */
export function clear() {
  edit((doc) => {
    if (isBlank(doc)) return false;
    Object.assign(doc, blank());
    return true;
  });
}

/** Whether nothing is asked. */
export function isBlank(doc) {
  return !doc.text && doc.exemplars.length === 0 && doc.objects.length === 0;
}

/** Another picture: nothing is asked of it, and there is nothing to undo. */
export function reset(picture) {
  Object.assign(state, { picture, doc: blank(), past: [], future: [], found: [], hover: null });
  state.hidden.clear();
  changed('picture doc found');
}

/** The object that clicks belong to, made if it is not there. */
export function activeObject(doc) {
  let object = doc.objects.find((o) => o.id === doc.active);
  if (!object) {
    object = { id: doc.active, points: [], box: null };
    doc.objects.push(object);
  }
  return object;
}

/** Makes clicks belong to an object that is not there yet. */
export function nextObject() {
  edit((doc) => {
    const next = Math.max(0, ...doc.objects.map((o) => o.id)) + 1;
    if (doc.active === next) return false;
    doc.active = next;
    return true;
  });
}

/** Takes objects out that nothing shows any more. */
export function tidy(doc) {
  doc.objects = doc.objects.filter((o) => o.points.length > 0 || o.box);
}

/** Instances that count: not taken away, sure enough, and no more than are wanted. */
export function listed() {
  const { doc, found, settings, threshold } = state;
  const list = found.filter((f) => !doc.removed.includes(f.mark) && (f.slot !== 'c' || f.score >= threshold));
  const best = new Set(list.toSorted((a, b) => b.score - a.score).slice(0, settings.max_masks));
  return list.filter((f) => best.has(f));
}

/** Instances that are drawn. */
export function visible() {
  return listed().filter((f) => !state.hidden.has(f.cover));
}
