// The call that does what the page shows, in several languages, ready to copy or to run here.

import { address, call } from './api.js';
import { $, announce, complain, copyText } from './dom.js';
import { isBlank, on, state } from './state.js';

let language = 'curl';

/** The body of `/fal-ai/sam-3/image` for what is asked, without the picture; what has its default is left out. */
export function body() {
  const { doc, settings: s, threshold } = state;
  const out = {};
  const corners = ([x_min, y_min, x_max, y_max]) => ({ x_min, y_min, x_max, y_max });
  const several = doc.objects.length > 1;
  const id = (o) => (several ? { object_id: o.id } : {});
  if (doc.text) out.prompt = doc.text;
  const points = doc.objects.flatMap((o) => o.points.map((p) => ({ x: p.x, y: p.y, label: p.label, ...id(o) })));
  const boxes = doc.objects.filter((o) => o.box).map((o) => ({ ...corners(o.box), ...id(o) }));
  if (points.length) out.point_prompts = points;
  if (boxes.length) out.box_prompts = boxes;
  if (doc.exemplars.length) out.exemplars = doc.exemplars.map(({ box, label }) => ({ ...corners(box), label }));
  const concept = Boolean(doc.text || doc.exemplars.length);
  if (concept && threshold !== 0.5) out.detection_threshold = threshold;
  if (s.mask_threshold !== 0.5) out.mask_threshold = s.mask_threshold;
  // Several masks for one object are guesses, which are wanted only if they are.
  if (concept || several || s.multimask) Object.assign(out, { return_multiple_masks: true, max_masks: s.max_masks });
  if (s.include_scores) out.include_scores = true;
  if (s.include_boxes) out.include_boxes = true;
  if (s.answer === 'image') {
    if (!s.apply_mask) out.apply_mask = false;
    else if (s.mask_style !== 'overlay') out.mask_style = s.mask_style;
    if (s.sync_mode) out.sync_mode = true;
    if (s.output_format !== 'png') out.output_format = s.output_format;
  } else if (s.rle_format !== 'fal') out.rle_format = s.rle_format;
  return out;
}

/** Where the picture is to be had, if it is anywhere but on this machine. */
const remote = () => (/^https?:/i.test(state.picture.url ?? '') ? state.picture.url : null);

const route = () => `fal-ai/sam-3/${state.settings.answer}`;

/** Text within single quotes for a shell. */
const shell = (text) => (/^[\w@%+=:,./-]+$/.test(text) && !text.startsWith('-') ? text : `'${text.replaceAll("'", "'\\''")}'`);

/** JSON with short things on one line. */
function pretty(value, indent = '') {
  const flat = JSON.stringify(value);
  if (typeof value !== 'object' || value === null || flat.length + indent.length < 72) {
    return flat.replace(/("(?:[^"\\]|\\.)*")|([:,])/g, (m, text, mark) => (text ? text : `${mark} `));
  }
  const inner = `${indent}  `;
  if (Array.isArray(value)) return `[\n${value.map((v) => inner + pretty(v, inner)).join(',\n')}\n${indent}]`;
  const members = Object.entries(value).map(([k, v]) => `${inner}${JSON.stringify(k)}: ${pretty(v, inner)}`);
  return `{\n${members.join(',\n')}\n${indent}}`;
}

/** Values that stand in Python as they stand in JSON, but for three words. */
const python = (text) => text.replace(/("(?:[^"\\]|\\.)*")|\b(true|false|null)\b/g, (m, quoted, word) => quoted ?? { true: 'True', false: 'False', null: 'None' }[word]);

const KEYED = () => state.info?.key_required;

function curl(input) {
  const { name, file } = state.picture;
  const source = remote() ?? '@PICTURE@';
  // Within the here-document the shell reads $, ` and \.
  const json = pretty({ image_url: source, ...input }).replace(/[\\$`]/g, '\\$&').replace('@PICTURE@', () => `data:${file?.type || 'image/png'};base64,$(base64 < ${shell(name)} | tr -d '\\n')`);
  const auth = KEYED() ? "  -H \"Authorization: Key $FAL_KEY\" \\\n" : '';
  return `curl ${shell(address(route()))} \\\n${auth}  -H 'Content-Type: application/json' -d @- <<END\n${json}\nEND\n`;
}

function pythonCode(input) {
  const { name } = state.picture;
  const url = remote();
  const base = new URL(address('/'));
  const secure = base.protocol === 'https:';
  const host = `${base.host}${base.pathname.replace(/\/$/, '')}`;
  const lines = ['import os', ''];
  if (secure) lines.push(`os.environ["FAL_RUN_HOST"] = ${JSON.stringify(host)}`);
  lines.push(`os.environ.setdefault("FAL_KEY", ${KEYED() ? '"the key of this server"' : '"not needed here"'})`, '', 'import fal_client');
  if (!secure) lines.push('', `# fal-client speaks https unless it is told otherwise.`, `fal_client.client.RUN_URL_FORMAT = ${JSON.stringify(base.href)}`);
  const source = url ? JSON.stringify(url) : `fal_client.encode_file(${JSON.stringify(name)})`;
  const args = python(pretty({ image_url: '@PICTURE@', ...input }, '    ')).replace('"@PICTURE@"', () => source);
  const use = state.settings.answer === 'image' ? 'for mask in result["masks"]:\n    print(mask["url"])' : 'print(result["rle"])';
  return `${lines.join('\n')}\n\nresult = fal_client.run(\n    ${JSON.stringify(route())},\n    arguments=${args},\n)\n${use}\n`;
}

function javascript(input) {
  const { name } = state.picture;
  const url = remote();
  const proxy = JSON.stringify(address('/api/fal/proxy'));
  const source = url ? JSON.stringify(url) : `new Blob([await readFile(${JSON.stringify(name)})])`;
  const args = pretty({ image_url: '@PICTURE@', ...input }, '  ').replace('"@PICTURE@"', () => source);
  const imports = ["import { createFalClient } from '@fal-ai/client';", ...(url ? [] : ["import { readFile } from 'node:fs/promises';"])];
  const credentials = KEYED() ? 'process.env.FAL_KEY' : "'not needed here'";
  const use = state.settings.answer === 'image' ? 'for (const mask of data.masks) console.log(mask.url);' : 'console.log(data.rle);';
  return `${imports.join('\n')}\n\nconst fal = createFalClient({\n  proxyUrl: { url: ${proxy}, when: 'always' },\n  credentials: ${credentials},\n});\n\nconst { data } = await fal.subscribe(${JSON.stringify(route())}, {\n  input: ${args},\n});\n${use}\n`;
}

function commandLine() {
  const { doc, settings: s, threshold, picture, info } = state;
  const words = ['sam3 segment', shell(picture.name)];
  const tail = (label) => (label ? '' : ',-');
  if (doc.text) words.push(`--text ${shell(doc.text)}`);
  for (const e of doc.exemplars) words.push(`--exemplar ${e.box.join(',')}${tail(e.label)}`);
  doc.objects.forEach((o, i) => {
    if (i) words.push('--object');
    for (const p of o.points) words.push(`--point ${p.x},${p.y}${tail(p.label)}`);
    if (o.box) words.push(`--box ${o.box.join(',')}`);
  });
  if (s.multimask && doc.objects.length) words.push('--multimask');
  if (threshold !== 0.5 && (doc.text || doc.exemplars.length)) words.push(`--threshold ${threshold}`);
  if (s.mask_threshold !== 0.5) words.push(`--mask-threshold ${s.mask_threshold}`);
  words.push(`--max-masks ${s.max_masks}`);
  if (info && !info.demo) words.push(`--model ${shell(info.model)}`);
  if (s.answer === 'image-rle') words.push('--json -');
  else if (!s.apply_mask) words.push('--masks masks');
  else if (s.mask_style === 'cutout') words.push('--cutouts cutouts');
  else words.push(`--overlay ${shell(`segmented.${s.output_format}`)}`);
  return `${words.join(' \\\n  ')}\n`;
}

/** The code for what is asked now, or words that say why there is none. */
function code() {
  if (isBlank(state.doc)) return 'Ask for something first: then the same call stands here.\n';
  const input = body();
  return { curl, python: pythonCode, javascript, cli: commandLine }[language](input);
}

function draw() {
  if (!state.picture) return;
  $('code').textContent = code();
  const blank = isBlank(state.doc);
  $('code-copy').disabled = blank;
  $('code-run').disabled = blank;
}

/** Sends the call that the code shows, and shows what comes back. */
async function run() {
  $('answer').hidden = true;
  try {
    await state.picture.ready;
    const { id } = state.picture;
    const answer = await call(`/${route()}`, { what: `Call ${route()}`, method: 'POST', json: { image_id: id, ...body() } });
    const short = (k, v) => (typeof v === 'string' && v.length > 120 ? `${v.slice(0, 100)}… (${v.length} characters)` : v);
    $('answer-json').textContent = JSON.stringify(answer, short, 1);
    const images = [answer.image, ...(answer.masks ?? [])].filter(Boolean);
    $('answer-images').replaceChildren(
      ...images.map((image, i) => {
        const shown = document.createElement('img');
        Object.assign(shown, { src: image.url, alt: i ? `Mask ${i}` : 'All masks', loading: 'lazy' });
        return shown;
      }),
    );
    $('answer').hidden = false;
    announce('The answer is below the code.');
  } catch (error) {
    complain(error.message);
  }
}

export function setUpCode() {
  on('doc found threshold settings picture', draw);
  on('picture doc', () => { $('answer').hidden = true; });
  for (const input of document.querySelectorAll('input[name=language]')) {
    input.onchange = () => {
      language = input.value;
      draw();
    };
  }
  $('code-copy').onclick = (event) => copyText($('code').textContent, event.currentTarget).catch(() => complain('The browser does not let this page copy. Select the code and copy it by hand.'));
  $('code-run').onclick = run;
}
