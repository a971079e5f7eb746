// Asks the server what the document says, prompt by prompt.
//
// Each prompt is a question of its own, and the same question has the same answer: so answers are kept, only what is new
// is asked, and undoing costs nothing. Until a new answer comes, the last one of the same prompt stays to be seen. What
// nobody wants to know any more is cancelled.

import { call, Failure } from './api.js';
import { announce, complain, count, percent } from './dom.js';
import { send } from './intake.js';
import { Mask } from './mask.js';
import { changed, FLOOR, listed, on, PALETTE, state } from './state.js';

/** Most answers that are kept for a picture, and most instances of one answer. */
const KEPT = 300;
const MOST = 100;

/** Answers by question, questions on their way by question, and each prompt's last answer by its slot. */
const answers = new Map();
const flights = new Map();
const last = new Map();
/** Colours are handed out in the order of first appearance, and stay. */
const colours = new Map();

/** The prompts of the document: `{ slot, label, prompt, question }`, `question` being the whole body of the request. */
function prompts() {
  const { doc, settings } = state;
  const out = [];
  const question = (prompt, multimask) => ({
    prompts: [prompt],
    threshold: FLOOR,
    mask_threshold: settings.mask_threshold,
    max_masks: MOST,
    multimask,
  });
  if (doc.text || doc.exemplars.length) {
    const prompt = {};
    if (doc.text) prompt.text = doc.text;
    if (doc.exemplars.length) prompt.exemplars = doc.exemplars.map(({ box, label }) => ({ box, label }));
    out.push({ slot: 'c', label: doc.text || 'Match', question: question(prompt, false) });
  }
  for (const object of doc.objects) {
    const prompt = {};
    if (object.points.length) prompt.points = object.points;
    if (object.box) prompt.box = object.box;
    if (object.points.length || object.box) {
      out.push({ slot: `o${object.id}`, label: `Object ${object.id}`, question: question(prompt, settings.multimask) });
    }
  }
  return out.map((p) => ({ ...p, key: JSON.stringify(p.question) }));
}

/** Asks for what is not known yet, and shows what is. */
function refresh() {
  if (!state.picture) return;
  const wanted = prompts();
  const keys = new Set(wanted.map((p) => p.key));
  for (const [key, flight] of flights) if (!keys.has(key)) flight.abort();
  for (const slot of last.keys()) if (!wanted.some((p) => p.slot === slot)) last.delete(slot);
  for (const p of wanted) if (!answers.has(p.key) && !flights.has(p.key)) ask(p);
  gather(wanted);
  say(wanted);
}

async function ask(p) {
  const picture = state.picture;
  const flight = new AbortController();
  flights.set(p.key, flight);
  waiting();
  try {
    const answer = await put(picture, p, flight.signal);
    if (picture !== state.picture) return;
    const { width, height } = answer;
    answers.set(p.key, answer.instances.map((i) => ({ ...i, mask: new Mask(i.rle, width, height) })));
    if (answers.size > KEPT) answers.delete(answers.keys().next().value);
    complain('');
  } catch (error) {
    if (error.name === 'AbortError' || picture !== state.picture) return;
    complain(error.message);
  } finally {
    if (flights.get(p.key) === flight) flights.delete(p.key);
    waiting();
  }
  const wanted = prompts();
  gather(wanted);
  say(wanted);
}

/** Sends one question. If the server has forgotten the picture, it gets it again. */
async function put(picture, p, signal) {
  const what = p.slot === 'c' ? `Find “${p.label}”` : `Select ${p.label.toLowerCase()}`;
  for (let turn = 1; ; turn += 1) {
    await picture.ready;
    if (signal.aborted) throw new DOMException('cancelled', 'AbortError');
    try {
      return await call(`/api/images/${picture.id}/segment`, { what, method: 'POST', json: p.question, signal });
    } catch (error) {
      if (!(error instanceof Failure) || error.status !== 404 || turn > 1) throw error;
      picture.ready = send(picture);
    }
  }
}

/** Makes the list of instances of what is known. */
function gather(wanted) {
  const found = [];
  for (const p of wanted) {
    const answer = answers.get(p.key);
    if (answer) last.set(p.slot, { key: p.key, instances: answer });
    const known = last.get(p.slot);
    if (!known) continue;
    const numbered = known.instances.length > 1;
    known.instances.forEach((instance, rank) => {
      const key = `${p.slot}.${rank}`;
      found.push({
        ...instance,
        key,
        mark: `${known.key}#${rank}`,
        // An object stays hidden while it is clicked on; what other words find is something else.
        cover: p.slot === 'c' ? `${known.key}#${rank}` : key,
        slot: p.slot,
        label: numbered ? `${p.label} ${rank + 1}` : p.label,
        colour: colour(key, p.slot !== 'c' || instance.score >= state.threshold),
      });
    });
  }
  state.found = found;
  if (!found.some((f) => f.key === state.hover)) state.hover = null;
  changed('found');
}

/** Guesses that are not listed take no colour from what is: theirs comes from the end of the palette. */
function colour(key, counts) {
  if (!colours.has(key)) {
    const used = [...colours.values()];
    const free = PALETTE.filter((c) => !used.includes(c));
    if (!counts) return PALETTE[PALETTE.length - 1];
    colours.set(key, free[0] ?? PALETTE[colours.size % PALETTE.length]);
  }
  return colours.get(key);
}

function waiting() {
  const { picture } = state;
  state.waiting = picture && !picture.id ? picture.waiting : flights.size ? 'Searching…' : '';
  changed('waiting');
}

let said = '';

/** Tells whoever does not see the page what came out, once everything has. */
function say(wanted) {
  if (flights.size || !wanted.length) return;
  const words = wanted.map((p) => {
    const mine = listed().filter((f) => f.slot === p.slot);
    if (p.slot === 'c') return mine.length ? `${count(mine.length, 'match', 'matches')} for ${p.label}.` : `Nothing found for ${p.label}.`;
    if (!mine.length) return `${p.label}: nothing there.`;
    return `${p.label} covers ${percent(mine[0].area / (mine[0].mask.width * mine[0].mask.height))} of the picture.`;
  });
  const all = words.join(' ');
  if (all !== said) announce(all);
  said = all;
}

export function setUpAsks() {
  on('doc settings', refresh);
  // What the slider brings to light gets a colour of its own.
  on('threshold', () => state.picture && gather(prompts()));
  on('picture', () => {
    for (const flight of flights.values()) flight.abort();
    flights.clear();
    answers.clear();
    last.clear();
    colours.clear();
    said = '';
    waiting();
  });
  on('sent', waiting);
}
