// Calls to the server, and its errors in words.

import { log } from './log.js';

/** Most times that a request is sent again because the server was busy. */
const PATIENCE = 4;

const KEY = 'sam3-key';

/** What went wrong, in words for people. `status` is 0 where no answer came. */
export class Failure extends Error {
  constructor(words, status, detail = null) {
    super(words);
    this.status = status;
    this.detail = detail;
  }
}

/** The key for servers that ask for one; it stays with this tab. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? '',
  set: (value) => sessionStorage.setItem(KEY, value),
};

/** An address of this server, also behind a proxy that puts it under a path. */
export const address = (path) => new URL(path.replace(/^\//, ''), document.baseURI).href;

/**
 * Sends a request and returns the answer's JSON (or, with `blob`, its bytes). A busy server is asked again after the
 * time it names. What happened goes to the log as `what`.
 */
export async function call(path, { what, method = 'GET', json, body, type, blob = false, signal } = {}) {
  const headers = {};
  if (key.get()) headers.Authorization = `Key ${key.get()}`;
  if (json !== undefined) headers['Content-Type'] = 'application/json';
  else if (type) headers['Content-Type'] = type;
  for (let turn = 1; ; turn += 1) {
    const start = performance.now();
    let response;
    try {
      response = await fetch(address(path), { method, headers, body: json === undefined ? body : JSON.stringify(json), signal });
    } catch (error) {
      if (error.name === 'AbortError') {
        if (what) log({ what, ms: performance.now() - start, note: 'cancelled' });
        throw error;
      }
      const failure = new Failure('The server does not answer. Is it still running?', 0);
      if (what) log({ what, ms: performance.now() - start, error: failure.message });
      throw failure;
    }
    const ms = () => performance.now() - start;
    const request = response.headers.get('x-fal-request-id');
    if (response.ok) {
      const answer = blob ? await response.blob() : await response.json();
      if (what) log({ what, ms: ms(), request, timings: answer.timings, note: answer.cached ? 'already known' : '' });
      return answer;
    }
    const failure = await explain(response);
    if (response.status === 429 && turn < PATIENCE) {
      const seconds = Math.min(60, Number(response.headers.get('retry-after')) || 1);
      if (what) log({ what, ms: ms(), request, note: `busy, asking again in ${seconds} s` });
      await pause(seconds * 1000, signal);
      continue;
    }
    if (what) log({ what, ms: ms(), request, error: failure.message });
    throw failure;
  }
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => {
      clearTimeout(timer);
      reject(new DOMException('cancelled', 'AbortError'));
    });
  });
}

/** What an answer that is none means. */
async function explain(response) {
  const detail = await response.json().then((body) => body.detail, () => null);
  return new Failure(words(response.status, detail), response.status, detail);
}

function words(status, detail) {
  const said = Array.isArray(detail) ? detail.map(field).join(' ') : sentence(detail ?? '');
  switch (status) {
    case 401:
      return 'This server asks for a key, and the one given is not right.';
    case 413:
      return `The picture is too large. ${said}`;
    case 422:
      return said || 'The server does not understand the question.';
    case 429:
      return 'The server has too much to do just now. Try again in a moment.';
    case 503:
      return 'The server is stopping, or not ready yet. Try again in a moment.';
    case 504:
      return 'This took longer than the server allows.';
    default:
      return said || `The server answered with error ${status}.`;
  }
}

/** One wrong field: `{ loc: ["body", "prompts", 0], msg }`. */
function field({ loc = [], msg = '' }) {
  const names = { prompts: 'Prompt', image: 'The picture', image_url: 'The picture', prompt: 'What to find', max_masks: 'Most masks' };
  const place = loc.filter((part) => part !== 'body' && part !== 'query');
  const name = names[place[0]] ?? (place[0] ?? '').toString().replaceAll('_', ' ');
  const number = typeof place[1] === 'number' && place[0] !== 'prompts' ? ` ${place[1] + 1}` : '';
  const text = msg.replace(/^Value error, /, '');
  return sentence(name && name !== 'Prompt' ? `${name}${number}: ${text}` : text);
}

function sentence(text) {
  const trimmed = String(text).trim();
  if (!trimmed) return '';
  return `${trimmed[0].toUpperCase()}${trimmed.slice(1)}${/[.!?]$/.test(trimmed) ? '' : '.'}`;
}
