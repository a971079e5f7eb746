// What was asked: words, objects with their clicks and boxes, examples; each can be changed or taken away.

import { $, count, css, el, iconButton, segmented } from './dom.js';
import { ideas } from './intake.js';
import { clear, edit, isBlank, nextObject, on, redo, state, tidy, undo } from './state.js';
import { objectColour } from './stage.js';

/** What a box can mean. */
const MEANINGS = [
  ['object', 'Just this'],
  ['like', 'All like this'],
  ['unlike', 'None like this'],
];

/** Gives a box another meaning. `from` is where it is: an object's id, or the number of an example. */
function turn({ object, exemplar }, meaning) {
  let focus;
  edit((doc) => {
    let box;
    if (object !== undefined) {
      if (meaning === 'object') return false;
      const owner = doc.objects.find((o) => o.id === object);
      box = owner.box;
      owner.box = null;
      tidy(doc);
    } else {
      box = doc.exemplars[exemplar].box;
      doc.exemplars.splice(exemplar, 1);
    }
    if (meaning === 'object') {
      doc.active = Math.max(0, ...doc.objects.map((o) => o.id)) + 1;
      doc.objects.push({ id: doc.active, points: [], box });
      focus = `object-${doc.active}-object`;
    } else {
      const at = exemplar ?? doc.exemplars.length;
      doc.exemplars.splice(at, 0, { box, label: meaning === 'like' ? 1 : 0 });
      focus = `exemplar-${at}-${meaning}`;
    }
    return true;
  });
  // The switch is in another row now; whoever holds it goes with it.
  $(focus)?.focus();
}

function boxRow(name, value, where, label) {
  return el('div', { className: 'box-row' }, segmented(name, `What the box of ${label} means`, MEANINGS, value, (v) => turn(where, v)));
}

function words(doc) {
  if (!doc.text) return null;
  const drop = () => edit((d) => { d.text = ''; });
  return el('li', {}, el('div', { className: 'prompt' }, el('span', { className: 'name' }, `“${doc.text}”`), el('span', { className: 'detail' }, 'every one'), iconButton('bin', `Take “${doc.text}” away`, drop)));
}

function example({ label, box }, i) {
  const name = `Example ${i + 1}`;
  const drop = () => edit((d) => { d.exemplars.splice(i, 1); });
  const sign = el('span', { className: label ? 'sign good' : 'sign bad' }, label ? '+' : '−');
  return el(
    'li',
    {},
    el('div', { className: 'prompt' }, sign, el('span', { className: 'name' }, name), el('span', { className: 'detail' }, `${box[2] - box[0]} × ${box[3] - box[1]} px`), iconButton('bin', `Take ${name.toLowerCase()} away`, drop)),
    state.info?.objects === false ? null : boxRow(`exemplar-${i}`, label ? 'like' : 'unlike', { exemplar: i }, name.toLowerCase()),
  );
}

function object(o, doc) {
  const name = `Object ${o.id}`;
  const active = o.id === doc.active;
  const [plus, minus] = [o.points.filter((p) => p.label).length, o.points.filter((p) => !p.label).length];
  const parts = [plus && count(plus, 'click'), minus && `${minus} left out`, o.box && 'a box'].filter(Boolean);
  const spot = el('span', { className: 'spot' });
  spot.style.background = css(objectColour(o.id));
  const pick = () => edit((d) => {
    if (d.active === o.id) return false;
    d.active = o.id;
    return true;
  });
  const drop = () => edit((d) => { d.objects = d.objects.filter((p) => p.id !== o.id); });
  return el(
    'li',
    { className: active ? 'active' : '' },
    el(
      'div',
      { className: 'prompt' },
      el('button', { type: 'button', className: 'quiet pick', onclick: pick, 'aria-pressed': String(active), title: active ? 'Clicks go here' : 'Let clicks go here' }, spot, el('span', { className: 'name' }, name), el('span', { className: 'detail' }, parts.join(', '))),
      iconButton('bin', `Take ${name.toLowerCase()} away`, drop),
    ),
    o.box && state.info?.concepts !== false ? boxRow(`object-${o.id}`, 'object', { object: o.id }, name.toLowerCase()) : null,
  );
}

/** The list, the buttons about it, and what a click would do now. */
function draw() {
  const { doc, past, future, picture, tool } = state;
  if (!picture) return;
  const focus = document.activeElement?.id;
  const items = [words(doc), ...doc.exemplars.map(example), ...doc.objects.map((o) => object(o, doc))].filter(Boolean);
  $('prompts').replaceChildren(...items);
  // Switches are made anew under the hand that uses them.
  if (focus && document.activeElement === document.body) $(focus)?.focus();
  $('prompts-empty').hidden = items.length > 0;
  $('undo').disabled = past.length === 0;
  $('redo').disabled = future.length === 0;
  $('clear').disabled = isBlank(doc);
  const begun = doc.objects.some((o) => o.id === doc.active);
  $('next').disabled = !begun;
  if (document.activeElement !== $('phrase')) $('phrase').value = doc.text;
  $('how').textContent = how(begun, tool, doc.active);
}

function how(begun, tool, active) {
  if (tool === 'box') return 'Drag a box around something.';
  if (tool === 'exclude') return `Click on what does not belong to object ${active}.`;
  const out = matchMedia('(pointer: coarse)').matches ? '“Leave out” takes a part away.' : 'Shift-click leaves a part out.';
  if (begun) return `Clicks now add to object ${active}. ${out} For something else, press “New object”.`;
  return 'Click on something to select it, or drag a box around it.';
}

/** Words to try, under the line for words. */
function drawIdeas() {
  const chips = ideas().map((phrase) => el('button', { type: 'button', className: 'chip', onclick: () => find(phrase) }, phrase));
  $('ideas').replaceChildren(...(chips.length ? [el('span', {}, 'Try'), ...chips] : []));
}

function find(phrase) {
  const text = phrase.trim();
  $('phrase').value = text;
  edit((doc) => {
    if (doc.text === text) return false;
    doc.text = text;
    return true;
  });
}

export function setUpPrompts() {
  on('doc found tool picture', draw);
  on('picture', drawIdeas);
  $('ask').onsubmit = (event) => {
    event.preventDefault();
    find($('phrase').value);
  };
  // An emptied field takes the words back.
  $('phrase').oninput = () => {
    if (!$('phrase').value) find('');
  };
  $('undo').onclick = undo;
  $('redo').onclick = redo;
  $('clear').onclick = clear;
  $('next').onclick = nextObject;
  addEventListener('keydown', (event) => {
    const typing = event.target.closest?.('input:not([type=radio], [type=range], [type=checkbox]), textarea');
    if (!(event.ctrlKey || event.metaKey) || event.altKey || typing || !state.picture) return;
    const letter = event.key.toLowerCase();
    if (letter !== 'z' && letter !== 'y') return;
    event.preventDefault();
    if (letter === 'y' || event.shiftKey) redo();
    else undo();
  });
}
