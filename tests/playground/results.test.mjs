// What is found is drawn where the server says it is, listed, shown and hidden, and can be taken away.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { around, AT, decode, grid, open, union, useBrowser } from './harness.mjs';

useBrowser();

/** A phrase with at least one instance that the page shows, and the answer to it. */
async function found(desk, least = 1) {
  await desk.shapes();
  let answer;
  for (const phrase of ['circle', 'star', 'green square', 'shape', 'object']) {
    answer = await desk.find(phrase);
    if (answer.instances.filter((i) => i.score >= 0.5).length >= least) return answer;
  }
  // A model that is sure of nothing: the best that there is.
  await lower(desk, 0.05);
  assert.ok(answer.instances.length >= least, 'the model finds something');
  return answer;
}

const lower = (desk, value) =>
  desk.page.locator('#threshold').evaluate((input, v) => {
    input.value = v * 100;
    input.dispatchEvent(new Event('input'));
  }, value);

/** The slider's value, as a share. */
const threshold = async (desk) => Number(await desk.page.inputValue('#threshold')) / 100;

/** Places of the picture that are clearly inside or outside of a mask. */
const clear = (mask, { width, height }) => grid(width, height).flatMap((place) => {
  const value = around(mask, width, height, place, 4);
  return value === null ? [] : [{ place, value }];
});

/** Distance of two colours. */
const far = (a, b) => Math.max(...a.map((v, i) => Math.abs(v - b[i])));

test('masks are drawn where the answer says', () =>
  open(async (desk) => {
    const answer = await found(desk);
    const mask = union(answer, await threshold(desk));
    const places = clear(mask, answer);
    const at = places.map((p) => p.place);
    await desk.page.mouse.move(0, 0);
    assert.ok(places.some((p) => p.value) && places.some((p) => !p.value), 'there is an inside and an outside');

    await desk.view('Mask');
    const white = await desk.pixels(at);
    places.forEach((p, i) => assert.equal(white[i][0], p.value * 255, `mask at ${p.place}`));

    await desk.view('Outline');
    const bare = await desk.pixels(at);
    await desk.view('Overlay');
    const tinted = await desk.pixels(at);
    places.forEach((p, i) => {
      if (p.value) assert.ok(far(tinted[i], bare[i]) > 15, `tinted at ${p.place}: ${tinted[i]} from ${bare[i]}`);
      else assert.deepEqual(tinted[i], bare[i], `bare at ${p.place}`);
    });

    await desk.view('Cut-out');
    const cut = await desk.pixels(at);
    places.forEach((p, i) => {
      if (p.value) assert.deepEqual(cut[i], bare[i], `kept at ${p.place}`);
      else assert.ok(cut[i][0] === cut[i][1] && [0xd4, 0xf2].includes(cut[i][0]), `cut at ${p.place}`);
    });
    await desk.page.getByRole('button', { name: 'Clear', exact: true }).click();
    assert.deepEqual(await desk.pixels(at), bare, 'with nothing found there is the picture');
  }));

test('outlines run along the edge, and the opacity is that of the slider', () =>
  open(async (desk, page) => {
    await desk.shapes();
    const answer = await desk.asking(() => desk.click(AT.star));
    assert.equal(answer.instances.length, 1);
    const mask = decode(answer.instances[0].rle, 800, 600);
    // The first pixel inside on the row of the click, from the left.
    const row = AT.star[1];
    const x = mask.subarray(row * 800, row * 800 + 800).indexOf(1);
    assert.ok(x >= 0, 'the mask has something on the row of the click');
    await page.mouse.move(0, 0);
    await desk.view('Outline');
    const colour = await page.evaluate(() => import('/state.js').then(({ state }) => state.found[0].colour));
    assert.deepEqual(await desk.pixel([x + 1, row]), colour);

    await desk.view('Overlay');
    const inside = clear(mask, answer).find((p) => p.value && far(p.place, AT.star) > 25).place;
    const shades = [];
    for (const value of [0, 45, 90]) {
      await page.locator('#opacity').fill(String(value));
      shades.push(await desk.pixel(inside));
    }
    const [none, , most] = shades.map((s) => far(s, colour));
    assert.ok(most < none * 0.2, `nearly the colour itself: ${shades}`);
    assert.ok(far(shades[0], shades[1]) > 10);
    await desk.view('Mask');
    assert.ok(await page.locator('#opacity').isDisabled());
  }));

test('what is under the pointer stands out, in the picture and in the list', () =>
  open(async (desk, page) => {
    const answer = await found(desk);
    const places = clear(decode(answer.instances[0].rle, answer.width, answer.height), answer).filter((p) => p.value);
    const place = places[Math.floor(places.length / 2)].place;
    await page.mouse.move(0, 0);
    const calm = await desk.pixel(place);
    await desk.hover(place);
    const strong = await desk.pixel(place);
    assert.ok(far(calm, strong) > 8, `${calm} and ${strong}`);
    assert.equal(await page.locator('#instances .under').count(), 1);
    await page.mouse.move(0, 0);
    assert.deepEqual(await desk.pixel(place), calm);
    await desk.rows().first().hover();
    assert.ok(far(await desk.pixel(place), calm) > 8, 'the list shows it, too');
  }));

test('instances have a score and an area, are hidden, shown and deleted', () =>
  open(async (desk, page) => {
    const answer = await found(desk);
    const shown = answer.instances.filter((i) => i.score >= 0.05);
    const first = desk.rows().first();
    const words = await first.textContent();
    assert.ok(words.includes(`${Math.round(shown[0].score * 100)}\u202f%`), words);
    assert.ok(words.includes(shown[0].area.toLocaleString('en')), words);
    const before = await desk.rows().count();
    const inside = clear(decode(shown[0].rle, answer.width, answer.height), answer).find((p) => p.value).place;
    await desk.view('Mask');
    assert.equal((await desk.pixel(inside))[0], 255);
    const eye = first.getByRole('button', { name: /^Show / });
    assert.equal(await eye.getAttribute('aria-pressed'), 'true');
    await eye.click();
    assert.equal(await eye.getAttribute('aria-pressed'), 'false');
    const others = union({ ...answer, instances: shown.slice(1, before) }, 0);
    assert.equal((await desk.pixel(inside))[0], 255 * others[inside[1] * 800 + inside[0]]);
    await eye.click();
    assert.equal((await desk.pixel(inside))[0], 255);
    await first.getByRole('button', { name: /^Delete / }).click();
    assert.equal(await desk.rows().count(), before - 1);
    await page.getByRole('button', { name: 'Undo' }).click();
    assert.equal(await desk.rows().count(), before);
  }));

test('the slider hides what is less sure, and asks nobody', () =>
  open(async (desk, page) => {
    const answer = await found(desk);
    const asked = desk.requests.length;
    for (const value of [0.05, 0.3, 0.6, 0.95]) {
      await lower(desk, value);
      const expected = answer.instances.filter((i) => i.score >= value).length;
      assert.equal(await desk.rows().count(), Math.min(32, expected), `at ${value}`);
    }
    const best = Math.max(...answer.instances.map((i) => i.score));
    if (best < 0.95) {
      assert.match(await page.locator('#nothing').textContent(), /Nothing surer than 95/);
      await page.getByRole('button', { name: 'Show it' }).click();
      assert.ok((await desk.rows().count()) > 0);
    }
    assert.equal(desk.requests.length, asked);
  }));

test('an instance can be refined by clicks', () =>
  open(async (desk, page) => {
    const answer = await found(desk);
    const { box } = answer.instances[0];
    const refined = await desk.asking(() => desk.rows().first().getByRole('button', { name: /^Refine / }).click());
    assert.deepEqual(refined.question.prompts, [{ box: box.map(Math.round) }]);
    assert.equal(await page.evaluate(() => document.activeElement.id), 'marks');
    const more = await desk.asking(() => desk.click([Math.round((box[0] + box[2]) / 2), Math.round((box[1] + box[3]) / 2)]));
    assert.ok(more.question.prompts[0].box && more.question.prompts[0].points.length === 1);
  }));

/** The file that a press of Download saves. */
async function saved(desk, kind) {
  await desk.page.selectOption('#kind', kind);
  const [download] = await Promise.all([desk.page.waitForEvent('download'), desk.page.getByRole('button', { name: /^(Download|Saved)$/ }).click()]);
  return { name: download.suggestedFilename(), bytes: readFileSync(await download.path()) };
}

/** Pixels of a picture file, decoded by the browser. */
async function decoded(page, bytes) {
  const { width, height, text } = await page.evaluate(async (base64) => {
    const file = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([file]));
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
    let text = '';
    for (let at = 0; at < data.length; at += 0x8000) text += String.fromCharCode(...data.subarray(at, at + 0x8000));
    return { width: bitmap.width, height: bitmap.height, text: btoa(text) };
  }, bytes.toString('base64'));
  return { width, height, data: Buffer.from(text, 'base64') };
}

/** COCO's text back to counts. */
function counts(text) {
  const out = [];
  for (let at = 0; at < text.length;) {
    let [value, shift, byte] = [0, 0, 0];
    do {
      byte = text.charCodeAt(at) - 48;
      value |= (byte & 0x1f) << shift;
      shift += 5;
      at += 1;
    } while (byte & 0x20);
    if (byte & 0x10) value |= -1 << shift;
    out.push(out.length > 2 ? value + out[out.length - 2] : value);
  }
  return out;
}

test('what is found is saved as pictures and as data', () =>
  open(async (desk, page) => {
    const answer = await found(desk);
    const least = await threshold(desk);
    const shown = answer.instances.filter((i) => i.score >= least).slice(0, 32);
    const mask = union({ ...answer, instances: shown });

    const flat = await saved(desk, 'mask');
    assert.equal(flat.name, 'shapes-mask.png');
    const image = await decoded(page, flat.bytes);
    assert.deepEqual([image.width, image.height], [800, 600]);
    for (let i = 0; i < mask.length; i += 97) assert.equal(image.data[4 * i], mask[i] * 255, `mask file at ${i}`);

    const cut = await saved(desk, 'cutout');
    const piece = await decoded(page, cut.bytes);
    const inside = piece.data.filter((v, i) => i % 4 === 3 && v === 255).length;
    assert.equal(inside, mask.reduce((a, b) => a + b), 'exactly the mask is opaque');
    assert.ok(piece.width <= 800 && piece.height <= 600);

    await desk.tab('Settings');
    await page.selectOption('#set-output_format', 'jpeg');
    const seen = await saved(desk, 'shown');
    assert.equal(seen.name, 'shapes-segmented.jpg');
    assert.deepEqual([...seen.bytes.subarray(0, 3)], [0xff, 0xd8, 0xff]);
    await page.selectOption('#set-output_format', 'webp');
    assert.equal((await saved(desk, 'shown')).bytes.subarray(8, 12).toString(), 'WEBP');

    const coco = JSON.parse((await saved(desk, 'coco')).bytes);
    assert.deepEqual(coco.images[0], { id: 1, file_name: 'shapes.png', width: 800, height: 600 });
    assert.equal(coco.annotations.length, shown.length);
    coco.annotations.forEach((a, i) => {
      const one = decode(shown[i].rle, 800, 600);
      assert.equal(a.area, one.reduce((x, y) => x + y));
      const runs = counts(a.segmentation.counts);
      assert.equal(runs.reduce((x, y) => x + y), 800 * 600);
      let [at, value] = [0, 0];
      for (const run of runs) {
        // The first pixel of every run, by columns.
        if (run && at < 800 * 600) assert.equal(one[(at % 600) * 800 + Math.floor(at / 600)], value, `COCO run at ${at}`);
        at += run;
        value = 1 - value;
      }
    });

    const rle = JSON.parse((await saved(desk, 'rle')).bytes);
    assert.deepEqual(rle.rle, shown.map((i) => i.rle));
    assert.deepEqual(rle.scores, shown.map((i) => i.score));
  }));

test('what is found is copied', () =>
  open(async (desk, page) => {
    await found(desk);
    const copy = page.getByRole('button', { name: /^(Copy|Copied)$/ }).and(page.locator('#copy'));
    await page.selectOption('#kind', 'cutout');
    await copy.click();
    await page.locator('#copy', { hasText: 'Copied' }).waitFor();
    const types = await page.evaluate(() => navigator.clipboard.read().then((items) => items.flatMap((i) => i.types)));
    assert.ok(types.includes('image/png'), types.join());
    await page.selectOption('#kind', 'coco');
    await copy.click();
    await page.waitForFunction(() => navigator.clipboard.readText().then((t) => t.includes('"annotations"')));
  }));

test('settings change what is seen and asked', () =>
  open(async (desk, page) => {
    await desk.shapes();
    await desk.asking(() => desk.click(AT.star));
    await desk.tab('Settings');
    const edge = await desk.asking(async () => {
      await page.getByLabel('Edge').fill('0.8');
      await page.keyboard.press('Tab');
    });
    assert.equal(edge.question.mask_threshold, 0.8);
    const three = await desk.asking(() => page.getByLabel('Three guesses for objects').click());
    assert.equal(three.question.multimask, true);
    assert.equal(three.instances.length, 3);
    assert.equal(await desk.rows().count(), 3);
    await page.getByLabel('Most results').fill('99');
    await page.keyboard.press('Tab');
    assert.equal(await page.getByLabel('Most results').inputValue(), '32', 'kept within its bounds');
    await page.getByLabel('Most results').fill('1');
    await page.keyboard.press('Tab');
    assert.equal(await desk.rows().count(), 1);
    await page.selectOption('#set-answer', 'image-rle');
    assert.ok(await page.getByLabel('Draw masks on the picture').isDisabled());
    await page.getByRole('button', { name: 'Back to the defaults' }).click();
    await desk.idle();
    assert.equal(await page.getByLabel('Most results').inputValue(), '32');
    assert.equal(await page.getByLabel('Draw masks on the picture').isDisabled(), false);
    assert.equal(await desk.rows().count(), 1, 'one guess again');
  }));
