// What the page asked the server, and where the time went.

import { $, el, span } from './dom.js';

/** Most lines that are kept. */
const LINES = 200;

/** Stages as people would call them; whoever looks for the server's names finds them in the tip. */
const STAGES = {
  fetch: 'fetch the file',
  decode: 'read the file',
  resize: 'resize',
  encode_image: 'look at the picture',
  encode_text: 'read the words',
  ground: 'search',
  masks: 'draw masks',
  segment: 'draw masks',
  postprocess: 'finish',
};

/**
 * Adds a line. `what` was asked and took `ms` here; `timings` are the server's seconds per stage, `note` and `error` words
 * about it, `request` is the server's name for it.
 */
export function log({ what, ms, timings = {}, note = '', error = '', request = '' }) {
  const lines = $('log-lines');
  const stages = Object.entries(timings).map(([name, seconds]) =>
    el('li', { title: name }, `${STAGES[name] ?? name.replaceAll('_', ' ')} `, el('b', {}, span(seconds * 1000))),
  );
  const line = el(
    'li',
    { className: error ? 'failed' : '', title: request ? `Request ${request}` : '' },
    el('time', {}, new Date().toLocaleTimeString('en-GB')),
    el('span', { className: 'what' }, what),
    el('b', { className: 'ms' }, span(ms)),
    stages.length ? el('ul', { className: 'stages' }, ...stages) : null,
    note || error ? el('span', { className: 'note' }, error || note) : null,
  );
  lines.prepend(line);
  while (lines.children.length > LINES) lines.lastChild.remove();
  $('log-empty').hidden = true;
  $('log-clear').hidden = false;
}

export function setUpLog() {
  $('log-clear').onclick = () => {
    $('log-lines').replaceChildren();
    $('log-empty').hidden = false;
    $('log-clear').hidden = true;
  };
}
