// How pictures come in, and what is said when they do not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { open, shapesFile, SHAPES, URL_, useBrowser } from './harness.mjs';

useBrowser();

const uploads = (desk) => desk.requests.filter((r) => r === 'POST /api/images').length;

test('the first look says what to do and which model answers', () =>
  open(async (desk, page) => {
    const info = await page.request.get(new URL('/api/info', URL_).href).then((r) => r.json());
    const model = await page.locator('#model').textContent();
    const demo = info.demo || /demo model/.test(info.origin ?? '');
    assert.ok(model.includes(info.device.split(',')[0]) && (demo ? model.includes('Demo model') : model.includes(info.model)), model);
    assert.equal(await page.locator('#demo').isVisible(), demo);
    if (demo) {
      await page.getByRole('button', { name: 'Close this note' }).click();
      assert.ok(await page.locator('#demo').isHidden());
    }
    await page.getByRole('heading', { name: 'Pick anything out of a picture' }).waitFor();
    assert.equal(await page.locator('#samples button').count(), 3);
    const sizes = await page.locator('#samples img').evaluateAll((all) => all.map((i) => i.naturalWidth));
    assert.ok(sizes.every((w) => w > 100), `samples are there: ${sizes}`);
  }));

test('a sample is sent once, however much is asked of it', () =>
  open(async (desk, page) => {
    await desk.shapes();
    assert.deepEqual(await desk.size(), { width: 800, height: 600 });
    await desk.asking(() => desk.click([150, 140]));
    await desk.asking(() => desk.click([400, 150]));
    await desk.find('circle');
    assert.equal(uploads(desk), 1);
    await page.getByRole('button', { name: 'Another picture' }).click();
    assert.ok(await page.locator('#welcome').isVisible());
    assert.ok(await page.locator('#work').isHidden());
  }));

test('pictures are chosen from files, the same one twice, too', () =>
  open(async (desk, page) => {
    for (let turn = 1; turn <= 2; turn += 1) {
      const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.getByRole('button', { name: 'Choose a picture' }).click()]);
      await chooser.setFiles(SHAPES);
      await desk.ready();
      assert.equal(uploads(desk), turn);
      await page.getByRole('button', { name: 'Another picture' }).click();
    }
  }));

/** Fires an event with files or texts, as the browser does for drops and pastes. */
const give = (page, kind, { files = [], texts = {} }) =>
  page.evaluate(
    ({ kind, files, texts }) => {
      const transfer = new DataTransfer();
      for (const { name, type, bytes } of files) transfer.items.add(new File([Uint8Array.from(bytes)], name, { type }));
      for (const [type, text] of Object.entries(texts)) transfer.setData(type, text);
      const event = kind === 'paste'
        ? new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true, cancelable: true })
        : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
      document.body.dispatchEvent(event);
    },
    { kind, files, texts },
  );

const png = () => ({ name: 'drawing.png', type: 'image/png', bytes: [...shapesFile()] });

test('pictures are dropped anywhere, also while another is there', () =>
  open(async (desk, page) => {
    await give(page, 'dragenter', { files: [png()] });
    assert.ok(await page.locator('body.dropping').count());
    await give(page, 'drop', { files: [png()] });
    await desk.ready();
    assert.equal(await page.locator('body.dropping').count(), 0);
    await desk.asking(() => desk.click([150, 140]));
    await give(page, 'drop', { files: [{ ...png(), name: 'other.png' }] });
    await page.waitForFunction(() => document.title.startsWith('other.png'));
    assert.equal((await desk.doc()).objects.length, 0, 'nothing is asked of the new one');
  }));

test('pictures are pasted', () =>
  open(async (desk, page) => {
    await give(page, 'paste', { files: [png()] });
    await desk.ready();
    assert.equal(uploads(desk), 1);
  }));

test('pictures are fetched by the server, which shows them, or says why not', () =>
  open(
    async (desk, page) => {
      await page.fill('#url', `data:image/png;base64,${shapesFile().toString('base64')}`);
      await page.getByRole('button', { name: 'Fetch' }).click();
      await desk.ready();
      assert.ok(desk.requests.includes('GET /api/images/{id}/picture'));
      assert.ok((await desk.pixel([150, 140]))[0] > 180, 'the red circle is drawn');
      await page.getByRole('button', { name: 'Another picture' }).click();
      // The server fetches from public addresses alone.
      await page.fill('#url', 'http://127.0.0.1:1/picture.png');
      await page.getByRole('button', { name: 'Fetch' }).click();
      const words = await page.getByRole('alert').textContent();
      assert.match(words.trim(), /^The picture: .{10,}\.$/);
      await page.getByRole('button', { name: 'Close this message' }).click();
      assert.ok(await page.getByRole('alert').isHidden());
    },
    { wrong: ['422'] },
  ));

test('a format that the browser does not know is shown all the same', () =>
  open(async (desk, page) => {
    // A bare TIFF of 16 × 16 red pixels.
    const pixels = Buffer.alloc(16 * 16 * 3);
    for (let i = 0; i < pixels.length; i += 3) pixels[i] = 230;
    const tags = [[256, 3, 1, 16], [257, 3, 1, 16], [258, 3, 3, 134], [259, 3, 1, 1], [262, 3, 1, 2], [273, 4, 1, 140], [277, 3, 1, 3], [278, 3, 1, 16], [279, 4, 1, pixels.length]];
    const head = Buffer.alloc(140);
    head.write('II*\0', 'latin1');
    head.writeUInt32LE(8, 4);
    head.writeUInt16LE(tags.length, 8);
    tags.forEach(([tag, type, n, value], i) => {
      const at = 10 + 12 * i;
      head.writeUInt16LE(tag, at);
      head.writeUInt16LE(type, at + 2);
      head.writeUInt32LE(n, at + 4);
      if (type === 3 && n === 1) head.writeUInt16LE(value, at + 8);
      else head.writeUInt32LE(value, at + 8);
    });
    for (let i = 0; i < 3; i += 1) head.writeUInt16LE(8, 134 + 2 * i);
    await page.setInputFiles('#file', { name: 'red.tif', mimeType: 'image/tiff', buffer: Buffer.concat([head, pixels]) });
    await desk.ready();
    const [r, g, b] = await desk.pixel([8, 8]);
    assert.ok(r > 200 && g < 40 && b < 40, `${r} ${g} ${b}`);
  }));

test('what is no picture is refused in words', () =>
  open(
    async (desk, page) => {
      await page.setInputFiles('#file', { name: 'letter.txt', mimeType: 'text/plain', buffer: Buffer.from('Dear Sir') });
      assert.match(await page.getByRole('alert').textContent(), /“letter.txt” is not a picture/);
      await page.setInputFiles('#file', { name: 'torn.png', mimeType: 'image/png', buffer: shapesFile().subarray(0, 500) });
      await page.waitForFunction(() => /^The picture: /.test(document.querySelector('#error-words').textContent));
      assert.ok(await page.locator('#welcome').isVisible(), 'back to where pictures are chosen');
    },
    { wrong: ['422'] },
  ));

test('a picture that takes too long can be given up', () =>
  open(async (desk, page) => {
    await page.route('**/api/images', async (route) => {
      await new Promise((done) => { setTimeout(done, 3000); });
      await route.continue().catch(() => {});
    });
    await page.getByRole('button', { name: 'Shapes' }).click();
    await page.locator('#reading').waitFor();
    await page.getByRole('button', { name: 'Cancel' }).click();
    assert.ok(await page.locator('#welcome').isVisible());
    assert.ok(await page.getByRole('alert').isHidden(), 'nobody complains about what was wanted');
  }));
