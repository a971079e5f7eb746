// The API for people: /openapi.json as a page.

import { $, el } from './dom.js';

/** Groups of paths, by how they begin; the first that fits. */
const GROUPS = [
  ['fal: endpoints', /^\/fal-ai\/sam-3\//],
  ['fal: the same under the name of 3.1', /^\/fal-ai\//],
  ['fal: queue', /^\/queue\//],
  ['fal: uploads and results', /^\/(storage|files)\//],
  ['Roboflow', /^\/sam3\//],
  ['X-AnyLabeling', /^\/v1\//],
  ['Playground', /^\/api\//],
  ['The server itself', /^/],
];

/** Fields that are read first; the document has all of them by the alphabet. */
const FIRST = ['image_url', 'image_id', 'image', 'model', 'prompt', 'prompts', 'params', 'masks', 'rle'];

let schemas = {};

const resolve = (schema) => (schema?.$ref ? schemas[schema.$ref.split('/').pop()] : schema) ?? {};

/** The type of a value in words. */
function kind(given) {
  const schema = resolve(given);
  if (schema.enum) return schema.enum.filter((v) => v !== null).map((v) => JSON.stringify(v)).join(', ');
  if (schema.anyOf) return [...new Set(schema.anyOf.filter((s) => s.type !== 'null').map(kind))].join(' or ');
  const type = [schema.type].flat().filter((t) => t && t !== 'null').join(' or ');
  if (type === 'array') {
    const of = kind(schema.items ?? {}).replace(/^[a-z]+$/, '$&s');
    return schema.minItems && schema.minItems === schema.maxItems ? `${schema.minItems} ${of}` : `list of ${of}`;
  }
  const { minimum: low, maximum: high } = schema;
  // Coordinates have bounds that say nothing.
  if (low !== undefined && Math.abs(high) < 1e6) return `${type}, ${low} to ${high}`;
  return type || 'anything';
}

/** Rows for the members of an object, those of its members below them. */
function rows(given, path = '') {
  const schema = resolve(given);
  const place = ([name]) => (FIRST.indexOf(name) + 1 || FIRST.length + 1);
  return Object.entries(schema.properties ?? {}).toSorted((a, b) => place(a) - place(b)).flatMap(([name, member]) => {
    const inner = resolve(member);
    const item = inner.type === 'array' || inner.type?.includes?.('array') ? resolve(inner.items) : inner;
    const list = item === inner ? '' : '[]';
    const fallback = 'default' in inner ? JSON.stringify(inner.default) : schema.required?.includes(name) ? 'required' : '';
    const row = el(
      'tr',
      {},
      el('th', { scope: 'row' }, el('code', {}, path + name)),
      el('td', {}, kind(inner)),
      el('td', {}, fallback),
      el('td', {}, inner.description ?? ''),
    );
    return [row, ...(item.properties ? rows(item, `${path}${name}${list}.`) : [])];
  });
}

/** A table of fields, or nothing where there are none. */
function table(title, given, about) {
  const list = rows(given);
  if (!list.length) return null;
  const head = el('tr', {}, ...['Field', 'Type', 'Default', 'Meaning'].map((name) => el('th', { scope: 'col' }, name)));
  return el('div', { className: 'scroll', tabIndex: 0, role: 'region', 'aria-label': about }, el('table', {}, el('caption', {}, title), el('thead', {}, head), el('tbody', {}, ...list)));
}

function operation(path, method, op) {
  const json = op.requestBody?.content?.['application/json'];
  const answer = op.responses?.['200']?.content?.['application/json']?.schema;
  const parameters = { properties: Object.fromEntries((op.parameters ?? []).map((p) => [p.name, { ...p.schema, description: p.in === 'path' ? 'Part of the path.' : `In the ${p.in}.` }])) };
  const name = `${method.toUpperCase()} ${path}`;
  const errors = Object.entries(op.responses ?? {}).filter(([status]) => status >= '400');
  return el(
    'details',
    { className: 'card', id: name.toLowerCase().replace(/[^a-z0-9]+/g, '-') },
    el('summary', {}, el('b', { className: 'method' }, method.toUpperCase()), el('code', {}, path), el('span', { className: 'muted' }, op.summary ?? '')),
    table('Parameters', parameters, `Parameters of ${name}`),
    json ? table('Body', json.schema, `Body of ${name}`) : null,
    json?.example ? el('pre', { tabIndex: 0, 'aria-label': `Example for ${name}` }, JSON.stringify(json.example, null, 1)) : null,
    answer ? table('Answer', answer, `Answer of ${name}`) : null,
    errors.length ? el('p', { className: 'muted' }, `Errors: ${errors.map(([status, { description }]) => `${status} ${description}`).join(' ')}`) : null,
  );
}

async function show() {
  const reply = await fetch(new URL('openapi.json', document.baseURI));
  if (!reply.ok) throw new Error(`The server answered with error ${reply.status}.`);
  const document_ = await reply.json();
  schemas = document_.components.schemas;
  const groups = new Map(GROUPS.map(([title]) => [title, []]));
  for (const [path, item] of Object.entries(document_.paths)) {
    const [title] = GROUPS.find(([, begins]) => begins.test(path));
    for (const [method, op] of Object.entries(item)) groups.get(title).push(operation(path, method, op));
  }
  for (const [title, operations] of groups) $('operations').append(el('section', {}, el('h2', {}, title), ...operations));
  const first = $(location.hash.slice(1)) ?? $('operations').querySelector('details');
  first.open = true;
}

show().catch((error) => {
  $('error-words').textContent = error instanceof TypeError ? 'The server does not answer. Is it still running?' : error.message;
  $('error').hidden = false;
});
