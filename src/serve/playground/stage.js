// Clicks, boxes and keys on the picture, and the marks that show them.

import { $, announce, css } from './dom.js';
import { activeObject, changed, edit, nextObject, on, PALETTE, state } from './state.js';
import { at, hover } from './view.js';

/** How far, in pixels of the screen, a pointer may slip in a click; beyond, it drags a box. */
const SLIP = 5;

/** Radius of a mark, in pixels of the screen. */
const MARK = 8;

const [GOOD, BAD] = ['#0b7a3b', '#c2261d'];

const marks = $('marks');

/** The box that is being dragged, the place of the keyboard's cross, and the corner it began a box at. */
let [drag, cross, corner] = [null, null, null];

/** A place of the picture for a place in the window, kept within it. */
function place(event) {
  const { left, top, width, height } = marks.getBoundingClientRect();
  const { picture } = state;
  return inside(((event.clientX - left) / width) * picture.width, ((event.clientY - top) / height) * picture.height);
}

function inside(x, y) {
  const { width, height } = state.picture;
  // Whole pixels, as the API has them: the one that the pointer is in.
  return { x: Math.floor(Math.min(Math.max(x, 0), width - 1)), y: Math.floor(Math.min(Math.max(y, 0), height - 1)) };
}

/** Adds a click to the object that clicks belong to. */
export function addPoint(x, y, label) {
  const p = inside(x, y);
  edit((doc) => {
    const object = activeObject(doc);
    if (object.points.some((q) => q.x === p.x && q.y === p.y && q.label === label)) return false;
    object.points.push({ ...p, label });
    return true;
  });
}

/** Adds a box: to the object that clicks belong to, or, if that has one, to a new one. */
export function addBox(a, b) {
  const [p, q] = [inside(a.x, a.y), inside(b.x, b.y)];
  const box = [Math.min(p.x, q.x), Math.min(p.y, q.y), Math.max(p.x, q.x) + 1, Math.max(p.y, q.y) + 1];
  edit((doc) => {
    if (activeObject(doc).box) doc.active = Math.max(...doc.objects.map((o) => o.id)) + 1;
    activeObject(doc).box = box;
  });
}

function pointers() {
  marks.addEventListener('pointerdown', (event) => {
    if (event.button !== 0 && event.button !== 2) return;
    cross = null;
    drag = { from: place(event), to: null, x: event.clientX, y: event.clientY, against: event.button === 2 || event.shiftKey, pointer: event.pointerId };
    // Fingers scroll the page unless they are to draw boxes.
    if (event.pointerType === 'mouse' || state.tool === 'box') marks.setPointerCapture(event.pointerId);
  });
  marks.addEventListener('pointermove', (event) => {
    const p = place(event);
    if (drag?.pointer === event.pointerId) {
      const far = Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > SLIP;
      if ((far || drag.to) && (event.pointerType === 'mouse' || state.tool === 'box')) drag.to = p;
      drawMarks();
    } else if (event.pointerType === 'mouse') {
      hover(at(p.x, p.y)?.key ?? null);
    }
  });
  marks.addEventListener('pointerup', (event) => {
    if (drag?.pointer !== event.pointerId) return;
    const { from, to, against } = drag;
    drag = null;
    if (to && Math.abs(to.x - from.x) + Math.abs(to.y - from.y) > 1) addBox(from, to);
    else if (!to) addPoint(from.x, from.y, against || state.tool === 'exclude' ? 0 : 1);
    drawMarks();
  });
  marks.addEventListener('pointercancel', () => {
    drag = null;
    drawMarks();
  });
  marks.addEventListener('pointerleave', () => hover(null));
  // The other button of the mouse leaves out, as in other programs.
  marks.addEventListener('contextmenu', (event) => event.preventDefault());
}

/** Moves the cross by so many steps, a hundredth of the picture each, or by pixels. */
function move(dx, dy, fine) {
  const { width, height } = state.picture;
  const step = fine ? 1 : Math.max(1, Math.round(Math.max(width, height) / 50));
  cross ??= inside(width / 2, height / 2);
  cross = inside(cross.x + dx * step, cross.y + dy * step);
  const under = at(cross.x, cross.y);
  hover(under?.key ?? null);
  announce(`${cross.x}, ${cross.y}${under ? `: ${under.label}` : ''}`);
}

function keys() {
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  marks.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = arrows[event.key];
    if (arrow) {
      move(...arrow, event.shiftKey);
    } else if (event.key === 'Enter' || event.key === ' ') {
      cross ??= inside(state.picture.width / 2, state.picture.height / 2);
      addPoint(cross.x, cross.y, event.shiftKey || state.tool === 'exclude' ? 0 : 1);
    } else if (event.key === '-') {
      if (cross) addPoint(cross.x, cross.y, 0);
    } else if (event.key.toLowerCase() === 'b') {
      cross ??= inside(state.picture.width / 2, state.picture.height / 2);
      if (corner) {
        addBox(corner, cross);
        corner = null;
      } else {
        corner = { ...cross };
        announce('One corner of a box. Move on, and press B again.');
      }
    } else if (event.key.toLowerCase() === 'n') {
      nextObject();
    } else if (event.key === 'Escape') {
      [drag, cross, corner] = [null, null, null];
    } else {
      return;
    }
    event.preventDefault();
    drawMarks();
  });
  marks.addEventListener('blur', () => {
    [cross, corner] = [null, null];
    if (state.picture) drawMarks();
  });
}

/** The colour in which an object is painted, before and after there is a mask. */
export function objectColour(id) {
  return state.found.find((f) => f.slot === `o${id}`)?.colour ?? PALETTE[(id - 1) % PALETTE.length];
}

/** All clicks and boxes, over the picture. */
function drawMarks() {
  const context = marks.getContext('2d');
  context.clearRect(0, 0, marks.width, marks.height);
  if (!state.picture) return;
  const dots = marks.width / Math.max(1, marks.clientWidth);
  const zoom = marks.width / state.picture.width;
  const pen = { context, dots, zoom };
  const { doc } = state;
  for (const { box, label } of doc.exemplars) drawBox(pen, box, label ? GOOD : BAD, true, label ? '+' : '−');
  for (const object of doc.objects) {
    const colour = css(objectColour(object.id));
    if (object.box) drawBox(pen, object.box, colour, false, `${object.id}`);
    for (const p of object.points) drawPoint(pen, p, p.label ? GOOD : BAD, object.id === doc.active);
  }
  const box = drag?.to ? [drag.from, drag.to] : corner && cross ? [corner, cross] : null;
  if (box) {
    const [a, b] = box;
    drawBox(pen, [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x) + 1, Math.max(a.y, b.y) + 1], '#fff', true, '');
  }
  if (cross) drawCross(pen);
}

function drawBox({ context, dots, zoom }, box, colour, dashed, tag) {
  const [x0, y0, x1, y1] = box.map((v) => v * zoom);
  context.setLineDash([]);
  context.lineWidth = 4 * dots;
  context.strokeStyle = 'rgb(0 0 0 / 0.55)';
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  context.lineWidth = 2 * dots;
  context.strokeStyle = colour;
  context.setLineDash(dashed ? [7 * dots, 5 * dots] : []);
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  context.setLineDash([]);
  if (tag) drawTag({ context, dots }, x0, y0, tag, dashed ? colour : '#111');
}

/** A small sign at the corner of a box. */
function drawTag({ context, dots }, x, y, text, colour) {
  const size = 18 * dots;
  context.fillStyle = colour;
  context.beginPath();
  context.roundRect(Math.max(0, x - size / 2), Math.max(0, y - size / 2), size, size, 5 * dots);
  context.fill();
  write({ context, dots }, Math.max(size / 2, x), Math.max(size / 2, y), text);
}

function write({ context, dots }, x, y, text) {
  context.fillStyle = '#fff';
  context.font = `700 ${12 * dots}px system-ui, sans-serif`;
  context.textAlign = 'center';
  context.textBaseline = 'middle';
  context.fillText(text, x, y + 0.5 * dots);
}

function drawPoint({ context, dots, zoom }, { x, y, label }, colour, active) {
  const [cx, cy, r] = [(x + 0.5) * zoom, (y + 0.5) * zoom, (active ? MARK : MARK - 2) * dots];
  context.beginPath();
  context.arc(cx, cy, r, 0, 7);
  context.fillStyle = colour;
  context.fill();
  context.lineWidth = 2 * dots;
  context.strokeStyle = '#fff';
  context.stroke();
  context.fillStyle = '#fff';
  const [long, thin] = [r * 0.55, 1 * dots];
  context.fillRect(cx - long, cy - thin, 2 * long, 2 * thin);
  if (label) context.fillRect(cx - thin, cy - long, 2 * thin, 2 * long);
}

function drawCross({ context, dots, zoom }) {
  const [x, y, arm] = [(cross.x + 0.5) * zoom, (cross.y + 0.5) * zoom, 14 * dots];
  for (const [width, colour] of [[5, '#000'], [2, '#fff']]) {
    context.lineWidth = width * dots;
    context.strokeStyle = colour;
    context.beginPath();
    context.moveTo(x - arm, y);
    context.lineTo(x + arm, y);
    context.moveTo(x, y - arm);
    context.lineTo(x, y + arm);
    context.stroke();
  }
}

export function setUpStage() {
  pointers();
  keys();
  on('doc found size', drawMarks);
  on('tool', () => marks.classList.toggle('boxing', state.tool === 'box'));
  for (const input of document.querySelectorAll('input[name=tool]')) {
    input.onchange = () => {
      state.tool = input.value;
      changed('tool');
    };
  }
  const form = $('coordinates');
  form.onsubmit = (event) => {
    event.preventDefault();
    const number = (name) => Number(form.elements[name].value);
    const action = event.submitter.value;
    if (action === 'box') addBox({ x: number('x'), y: number('y') }, { x: number('x2') - 1, y: number('y2') - 1 });
    else addPoint(number('x'), number('y'), action === 'include' ? 1 : 0);
  };
}
