// A page in a browser, and helpers to use and to measure it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';

const deps = process.env.PLAYGROUND_DEPS;
export const require = createRequire(`${deps}/x.js`);
const { chromium } = require('playwright');

export const URL_ = process.env.PLAYGROUND_URL;
export const SHOTS = process.env.PLAYGROUND_SHOTS;
/** The drawing that the demo model knows: 800 × 600 pixels, shapes on paper. */
export const SHAPES = fileURLToPath(new URL('../../src/serve/playground/samples/shapes.png', import.meta.url));
/** Centres of shapes in it. */
export const AT = { circle: [150, 140], star: [400, 150], square: [650, 145], dot: [255, 300], heart: [400, 420], triangle: [140, 440], ring: [580, 420] };

let browser;

/** Starts the browser for a file of tests. */
export function useBrowser() {
  before(async () => {
    browser = await chromium.launch({ executablePath: process.env.CHROMIUM || undefined });
  });
  after(() => browser.close());
}

/** Opens the page, runs `f` on it, and fails if the page had an error that nobody expected. */
export async function open(f, { url = URL_, wrong = [], ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 860 }, permissions: ['clipboard-read', 'clipboard-write'], ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.stack));
  page.on('console', (message) => {
    if (message.type() === 'error' && !wrong.some((w) => message.text().includes(w))) errors.push(message.text());
  });
  const desk = new Desk(page);
  try {
    await page.goto(url);
    await page.waitForFunction(() => !document.querySelector('#model').textContent.startsWith('Looking'));
    await f(desk, page, context);
    assert.deepEqual(errors, [], 'errors of the page');
  } finally {
    await context.close();
  }
}

/** The page, as somebody uses it. */
export class Desk {
  constructor(page) {
    this.page = page;
    /** Every request to the server's own routes, as `METHOD path`. */
    this.requests = [];
    page.on('request', (r) => {
      const { pathname } = new URL(r.url());
      if (/^\/(api|fal-ai)\//.test(pathname)) this.requests.push(`${r.method()} ${pathname.replace(/[0-9a-f]{32}/, '{id}')}`);
    });
  }

  /** Opens the sample with shapes, and waits until the server has looked at it. */
  async shapes() {
    await this.page.getByRole('button', { name: 'Shapes' }).click();
    await this.ready();
  }

  async ready() {
    await this.page.locator('#work').waitFor();
    await this.idle();
  }

  /** Waits until nothing is under way. */
  async idle() {
    await this.page.waitForFunction(() => document.querySelector('#stage').getAttribute('aria-busy') === 'false');
  }

  /** Does something that asks the server, and returns what it answered about masks. */
  async asking(f) {
    const [response] = await Promise.all([this.page.waitForResponse((r) => r.url().endsWith('/segment')), f()]);
    const answer = await response.json();
    await this.idle();
    return { ...answer, question: response.request().postDataJSON() };
  }

  find(text) {
    return this.asking(async () => {
      await this.page.fill('#phrase', text);
      await this.page.press('#phrase', 'Enter');
    });
  }

  /** Where a pixel of the picture is in the window. */
  async spot([x, y]) {
    const marks = this.page.locator('#marks');
    await marks.scrollIntoViewIfNeeded();
    const box = await marks.boundingBox();
    const size = await this.size();
    return [box.x + ((x + 0.5) / size.width) * box.width, box.y + ((y + 0.5) / size.height) * box.height];
  }

  size() {
    return this.page.evaluate(() => import('/state.js').then(({ state }) => ({ width: state.picture.width, height: state.picture.height })));
  }

  async click(at, { shift = false, button = 'left' } = {}) {
    if (shift) await this.page.keyboard.down('Shift');
    await this.page.mouse.click(...(await this.spot(at)), { button });
    if (shift) await this.page.keyboard.up('Shift');
  }

  async drag(from, to) {
    const [a, b] = [await this.spot(from), await this.spot(to)];
    await this.page.mouse.move(...a);
    await this.page.mouse.down();
    await this.page.mouse.move((a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
    await this.page.mouse.move(...b);
    await this.page.mouse.up();
  }

  async hover(at) {
    await this.page.mouse.move(...(await this.spot(at)));
  }

  view(name) {
    return this.page.getByText(name, { exact: true }).and(this.page.locator('.views label')).click();
  }

  tool(name) {
    return this.page.locator('#tools label', { hasText: name }).click();
  }

  tab(name) {
    return this.page.getByRole('tab', { name }).click();
  }

  rows() {
    return this.page.locator('#instances > li');
  }

  prompts() {
    return this.page.locator('#prompts > li');
  }

  /** What the document asks. */
  doc() {
    return this.page.evaluate(() => import('/state.js').then(({ state }) => state.doc));
  }

  /** Colours of the canvas at pixels of the picture. */
  async pixels(places) {
    const { width, height } = await this.size();
    return this.page.evaluate(
      ({ places, width, height }) => {
        const canvas = document.querySelector('#picture');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return places.map(([x, y]) => {
          const at = Math.floor(((y + 0.5) / height) * canvas.height) * canvas.width + Math.floor(((x + 0.5) / width) * canvas.width);
          return [...data.slice(4 * at, 4 * at + 3)];
        });
      },
      { places, width, height },
    );
  }

  async pixel(place) {
    return (await this.pixels([place]))[0];
  }
}

/** One byte per pixel from `start length` pairs: a decoder of the tests' own. */
export function decode(rle, width, height) {
  const mask = new Uint8Array(width * height);
  const numbers = rle.trim() ? rle.trim().split(/\s+/).map(Number) : [];
  for (let i = 0; i < numbers.length; i += 2) mask.fill(1, numbers[i] - 1, numbers[i] - 1 + numbers[i + 1]);
  return mask;
}

/** Whether pixels around a place are all alike in a mask, and what they are: 0, 1, or null at its border. */
export function around(mask, width, height, [x, y], reach = 3) {
  const value = mask[y * width + x];
  for (let dy = -reach; dy <= reach; dy += 1) {
    for (let dx = -reach; dx <= reach; dx += 1) {
      const [u, v] = [x + dx, y + dy];
      if (u >= 0 && v >= 0 && u < width && v < height && mask[v * width + u] !== value) return null;
    }
  }
  return value;
}

/** Places spread over a picture. */
export function grid(width, height, step = 13) {
  const places = [];
  for (let y = 5; y < height - 5; y += step) for (let x = 5; x < width - 5; x += step) places.push([x, y]);
  return places;
}

/** The union of the masks of instances at or over a score. */
export function union(answer, least = 0) {
  const all = new Uint8Array(answer.width * answer.height);
  for (const i of answer.instances) {
    if (i.score >= least) decode(i.rle, answer.width, answer.height).forEach((on, at) => { all[at] |= on; });
  }
  return all;
}

export const shapesFile = () => readFileSync(SHAPES);
