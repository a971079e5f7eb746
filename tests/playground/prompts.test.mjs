// What can be asked, and taken back: words, clicks, boxes, examples, several objects.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AT, open, useBrowser } from './harness.mjs';

useBrowser();

test('words find things, and are taken back', () =>
  open(async (desk, page) => {
    await desk.shapes();
    const typed = await desk.find('circle');
    assert.deepEqual(typed.question.prompts, [{ text: 'circle' }]);
    assert.match(await desk.prompts().first().textContent(), /“circle”/);
    const idea = await desk.asking(() => page.getByRole('button', { name: 'star', exact: true }).click());
    assert.deepEqual(idea.question.prompts, [{ text: 'star' }]);
    assert.equal(await page.inputValue('#phrase'), 'star');
    await page.fill('#phrase', '');
    assert.equal(await desk.prompts().count(), 0);
    assert.equal(await desk.rows().count(), 0);
  }));

test('clicks add, Shift, the other button and the tool leave out', () =>
  open(async (desk) => {
    await desk.shapes();
    const one = await desk.asking(() => desk.click(AT.star));
    assert.deepEqual(one.question.prompts, [{ points: [{ x: 400, y: 150, label: 1 }] }]);
    const two = await desk.asking(() => desk.click(AT.heart, { shift: true }));
    assert.deepEqual(two.question.prompts[0].points[1], { x: 400, y: 420, label: 0 });
    const three = await desk.asking(() => desk.click(AT.square, { button: 'right' }));
    assert.equal(three.question.prompts[0].points[2].label, 0);
    await desk.tool('Leave out');
    const four = await desk.asking(() => desk.click(AT.dot));
    assert.equal(four.question.prompts[0].points[3].label, 0);
    assert.match(await desk.prompts().first().textContent(), /Object 1.*1 click, 3 left out/);
    assert.equal(await desk.rows().count(), four.instances.length);
  }));

test('a dragged box shows an object, or examples for or against', () =>
  open(async (desk, page) => {
    await desk.shapes();
    const [from, to] = [[300, 320], [500, 525]];
    const box = [300, 320, 501, 526];
    const object = await desk.asking(() => desk.drag(from, to));
    assert.deepEqual(object.question.prompts, [{ box }]);
    const meaning = (words) => desk.prompts().first().locator('label', { hasText: words });
    const all = await desk.asking(() => meaning('All like this').click());
    assert.deepEqual(all.question.prompts, [{ exemplars: [{ box, label: 1 }] }]);
    const mixed = await desk.find('heart');
    assert.deepEqual(mixed.question.prompts, [{ text: 'heart', exemplars: [{ box, label: 1 }] }]);
    const example = desk.prompts().nth(1);
    const none = await desk.asking(() => example.locator('label', { hasText: 'None like this' }).click());
    assert.deepEqual(none.question.prompts[0].exemplars, [{ box, label: 0 }]);
    await example.locator('label', { hasText: 'Just this' }).click();
    await desk.idle();
    const doc = await desk.doc();
    assert.deepEqual([doc.exemplars, doc.objects.map((o) => o.box)], [[], [box]]);
    // The keyboard's focus stays on the switch, which was made anew.
    assert.equal(await page.evaluate(() => document.activeElement.name?.startsWith('object-')), true);
  }));

test('a second box is another object, and the box tool draws by touch', () =>
  open(
    async (desk, page) => {
      await desk.shapes();
      await desk.tool('Box');
      await desk.asking(() => desk.drag([60, 50], [240, 230]));
      await desk.asking(() => desk.drag([300, 40], [510, 255]));
      assert.deepEqual((await desk.doc()).objects.map((o) => o.id), [1, 2]);
      await desk.tool('Select');
      const box = await page.locator('#marks').boundingBox();
      const tap = await desk.asking(() => page.touchscreen.tap(box.x + box.width / 2, box.y + (420 / 600) * box.height));
      assert.equal(tap.question.prompts[0].points.length, 1);
    },
    { hasTouch: true },
  ));

test('several objects are clicked apart, and clicks go to the one that is picked', () =>
  open(async (desk, page) => {
    await desk.shapes();
    await desk.asking(() => desk.click(AT.star));
    await page.getByRole('button', { name: 'New object' }).click();
    await desk.asking(() => desk.click(AT.heart));
    assert.deepEqual((await desk.doc()).objects.map((o) => o.points.length), [1, 1]);
    await desk.prompts().first().getByRole('button', { name: /^Object 1/ }).click();
    const more = await desk.asking(() => desk.click([400, 200]));
    assert.equal(more.question.prompts[0].points.length, 2);
    assert.deepEqual((await desk.doc()).objects.map((o) => o.points.length), [2, 1]);
    await page.getByRole('button', { name: 'Take object 1 away' }).click();
    assert.deepEqual((await desk.doc()).objects.map((o) => o.id), [2]);
  }));

test('everything can be undone, done again and cleared, at no cost', () =>
  open(async (desk, page) => {
    await desk.shapes();
    await desk.find('circle');
    await desk.asking(() => desk.click(AT.star));
    await desk.asking(() => desk.click(AT.heart, { shift: true }));
    const [full, asked] = [await desk.doc(), desk.requests.length];
    const button = (name) => page.getByRole('button', { name, exact: true });
    for (let i = 0; i < 3; i += 1) await button('Undo').click();
    assert.equal(await desk.rows().count(), 0);
    assert.ok(await button('Undo').isDisabled());
    for (let i = 0; i < 3; i += 1) await button('Redo').click();
    assert.deepEqual(await desk.doc(), full);
    assert.ok(await button('Redo').isDisabled());
    await page.locator('#marks').focus();
    await page.keyboard.press('Control+z');
    assert.equal((await desk.doc()).objects[0].points.length, 1);
    await page.keyboard.press('Control+Shift+z');
    assert.equal((await desk.doc()).objects[0].points.length, 2);
    await button('Clear').click();
    assert.equal(await desk.prompts().count(), 0);
    await page.keyboard.press('Control+z');
    assert.deepEqual(await desk.doc(), full);
    assert.equal(desk.requests.length, asked, 'answers are kept');
  }));

test('places are typed, and reached with arrow keys', () =>
  open(async (desk, page) => {
    await desk.shapes();
    await page.getByText('Type coordinates instead').click();
    const form = page.locator('#coordinates');
    const type = async (values) => { for (const [name, v] of Object.entries(values)) await form.locator(`[name=${name}]`).fill(String(v)); };
    await type({ x: 400, y: 150 });
    const point = await desk.asking(() => form.getByRole('button', { name: 'Select' }).click());
    assert.deepEqual(point.question.prompts[0].points, [{ x: 400, y: 150, label: 1 }]);
    await type({ x: 10, y: 10 });
    const against = await desk.asking(() => form.getByRole('button', { name: 'Leave out' }).click());
    assert.equal(against.question.prompts[0].points[1].label, 0);
    await type({ x: 290, y: 40, x2: 512, y2: 255 });
    const box = await desk.asking(() => form.getByRole('button', { name: 'Box' }).click());
    assert.deepEqual(box.question.prompts[0].box, [290, 40, 512, 255]);

    await page.getByRole('button', { name: 'Clear', exact: true }).click();
    await page.locator('#marks').focus();
    await page.keyboard.press('ArrowLeft');
    await page.keyboard.press('Shift+ArrowDown');
    const cross = { x: 400 - 16, y: 301 };
    const key = await desk.asking(() => page.keyboard.press('Enter'));
    assert.deepEqual(key.question.prompts[0].points, [{ ...cross, label: 1 }]);
    await page.keyboard.press('ArrowUp');
    const minus = await desk.asking(() => page.keyboard.press('-'));
    assert.deepEqual(minus.question.prompts[0].points[1], { x: cross.x, y: cross.y - 16, label: 0 });
    await page.keyboard.press('n');
    await page.keyboard.press('b');
    for (let i = 0; i < 4; i += 1) await page.keyboard.press('ArrowRight');
    for (let i = 0; i < 4; i += 1) await page.keyboard.press('ArrowDown');
    const framed = await desk.asking(() => page.keyboard.press('b'));
    const [x, y] = [cross.x, cross.y - 16];
    assert.deepEqual(framed.question.prompts[0].box, [x, y, x + 65, y + 65]);
    await page.keyboard.press('Escape');
  }));
