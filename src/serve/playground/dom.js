// Small helpers for elements and words.

/** The element with this id. */
export const $ = (id) => document.getElementById(id);

/**
 * Makes an element. `props` are its properties; names with a dash and `role`, `for` are attributes.
 * `children` are elements or texts.
 */
export function el(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name.includes('-') || name === 'role' || name === 'for') element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((c) => c !== null && c !== undefined));
  return element;
}

/** A drawing from the sheet in the page. */
export function icon(name) {
  const space = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(space, 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(space, 'use');
  use.setAttribute('href', `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows a drawing and says `label`. */
export function iconButton(name, label, onclick, props = {}) {
  return el('button', { type: 'button', className: 'quiet icon-button', title: label, 'aria-label': label, onclick, ...props }, icon(name));
}

/** A switch of a few choices; `choices` are `[value, label]`. `onpick` gets the value. */
export function segmented(name, legend, choices, value, onpick) {
  const parts = choices.map(([v, label]) => {
    const id = `${name}-${v}`;
    const input = el('input', { type: 'radio', name, id, value: v, checked: v === value, onchange: () => onpick(v) });
    return [input, el('label', { for: id }, label)];
  });
  return el('fieldset', { className: 'segmented' }, el('legend', { className: 'sr' }, legend), ...parts.flat());
}

/** Words to somebody who does not see the page. */
export function announce(words) {
  const live = $('live');
  // The same words again are words, too: what is not changed is not read.
  live.textContent = live.textContent === words ? `${words}\u00a0` : words;
}

export const count = (n, one, many = `${one}s`) => `${n.toLocaleString('en')} ${n === 1 ? one : many}`;

export const percent = (share) => `${Math.round(share * 100)}\u202f%`;

/** A time in milliseconds, as people say it. */
export function span(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
}

/** A colour of the palette for style sheets. */
export const css = (colour) => `rgb(${colour.join(' ')})`;

/** Puts text on the clipboard, and says on the button that it is there. */
export async function copyText(text, button) {
  await navigator.clipboard.writeText(text);
  said(button, 'Copied');
}

/** Shows `words` on a button for a moment. */
export function said(button, words) {
  button.dataset.words ??= button.textContent;
  button.textContent = words;
  announce(words);
  clearTimeout(Number(button.dataset.timer));
  button.dataset.timer = setTimeout(() => {
    button.textContent = button.dataset.words;
  }, 1500);
}

/** Puts an error before the reader. No words take it away. */
export function complain(words) {
  $('error').hidden = !words;
  $('error-words').textContent = words ?? '';
}
