// Errors in words, the log, keys, themes, and whether the page can be used without a mouse, without eyes, on a phone.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { AT, open, require, SHOTS, useBrowser } from './harness.mjs';

useBrowser();

const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

/** Fails if axe finds anything to object to. */
async function check(page, where) {
  // As a debugger would: the page's own policy admits no script but its own.
  await page.evaluate(`${axe}; undefined`);
  const { violations, passes } = await page.evaluate(() => window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
  assert.ok(passes.length > 15, 'axe has looked');
  assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => `${n.html} ${n.failureSummary}`).join('; ')}`), [], where);
}

const shot = (page, name, fullPage = false) => page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage });

for (const [name, options] of Object.entries({
  light: {},
  dark: { colorScheme: 'dark' },
  phone: { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true },
  'phone-dark': { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true, colorScheme: 'dark' },
})) {
  test(`axe finds nothing, and nothing sticks out: ${name}`, () =>
    open(async (desk, page) => {
      const sticksOut = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      await check(page, 'welcome');
      await shot(page, `${name}-welcome`);
      assert.equal(await sticksOut(), 0);
      await desk.shapes();
      await check(page, 'a picture');
      await shot(page, `${name}-picture`);
      await desk.find('circle');
      await desk.asking(() => desk.click(AT.star));
      await desk.tool('Box');
      await page.getByRole('button', { name: 'New object' }).click();
      await desk.asking(() => (options.hasTouch ? box(desk, page) : desk.drag([300, 320], [500, 525])));
      await page.evaluate(() => scrollTo(0, 0));
      await shot(page, `${name}-results`);
      await check(page, 'results');
      for (const tab of ['Settings', 'Log', 'Code']) {
        await desk.tab(tab);
        await check(page, tab);
        assert.equal(await sticksOut(), 0, tab);
        await shot(page, `${name}-${tab.toLowerCase()}`, true);
      }
    }, options));
}

/** A box by finger, which the mouse of the tests does not draw. */
async function box(desk, page) {
  const [[x0, y0], [x1, y1]] = [await desk.spot([300, 320]), await desk.spot([500, 525])];
  const session = await page.context().newCDPSession(page);
  const send = (type, touchPoints) => session.send('Input.dispatchTouchEvent', { type, touchPoints });
  await send('touchStart', [{ x: x0, y: y0 }]);
  for (let i = 1; i <= 4; i += 1) await send('touchMove', [{ x: x0 + ((x1 - x0) * i) / 4, y: y0 + ((y1 - y0) * i) / 4 }]);
  await send('touchEnd', []);
}

for (const [name, options] of Object.entries({ light: {}, 'phone-dark': { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true, colorScheme: 'dark' } })) {
  test(`the API is a page, too: ${name}`, () =>
    open(async (desk, page) => {
      await page.goto(new URL('api.html', page.url()).href);
      const first = page.locator('details').first();
      await first.locator('table').first().waitFor();
      const row = first.getByRole('row', { name: /^max_masks/ });
      assert.match(await row.textContent(), /integer, 1 to 32.*3.*Most masks/);
      assert.match(await first.getByRole('row', { name: /^point_prompts\[\]\.label/ }).textContent(), /0, 1/);
      for (const path of ['/queue/fal-ai/sam-3/image', '/sam3/concept_segment', '/v1/predict', '/health']) {
        await page.locator('summary', { hasText: path }).first().waitFor();
      }
      await check(page, 'API');
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0);
      await shot(page, `${name}-api`);
    }, options));
}

test('everything is reached by keyboard, and results are said', () =>
  open(async (desk, page) => {
    const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim());
    const tabTo = async (id) => {
      for (let i = 0; i < 60; i += 1) {
        if ((await focused()) === id) return;
        await page.keyboard.press('Tab');
      }
      assert.fail(`Tab does not reach ${id}`);
    };
    await page.keyboard.press('Tab');
    assert.equal(await focused(), 'Skip to the content');
    await tabTo('choose');
    await tabTo('Shapes');
    await page.keyboard.press('Enter');
    await desk.ready();
    await page.waitForFunction(() => /shapes.png is ready/.test(document.querySelector('#live').textContent));
    await tabTo('phrase');
    await page.keyboard.type('circle');
    await desk.asking(() => page.keyboard.press('Enter'));
    assert.match(await page.locator('#live').textContent(), /(matches|match|Nothing found) for circle\./);
    await tabTo('tool-include');
    await page.keyboard.press('ArrowRight');
    assert.equal(await focused(), 'tool-exclude');
    await page.keyboard.press('ArrowLeft');
    await tabTo('marks');
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(outline, 'solid', 'the focus is seen');
    await desk.asking(() => page.keyboard.press('Enter'));
    assert.match(await page.locator('#live').textContent(), /Object 1 (covers \d+\u202f% of the picture|: nothing there)\./);
    for (const id of ['view-overlay', 'opacity', 'threshold', 'tab-code']) await tabTo(id);
    await page.keyboard.press('ArrowRight');
    assert.equal(await focused(), 'tab-settings');
    assert.ok(await page.locator('#panel-settings').isVisible());
    await page.keyboard.press('End');
    assert.ok(await page.locator('#panel-log').isVisible());
    assert.ok(await page.locator('#panel-code').isHidden());
  }));

test('light and dark follow the system, or the switch, which is kept', () =>
  open(async (desk, page) => {
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.emulateMedia({ colorScheme: 'dark' });
    const dark = await ground();
    assert.notEqual(dark, light);
    await page.getByRole('button', { name: 'Dark colours' }).click();
    assert.equal(await ground(), light);
    await page.reload();
    assert.equal(await ground(), light);
    await page.getByRole('button', { name: 'Dark colours' }).click();
    assert.equal(await ground(), dark);
  }));

test('the log has every request with its stages', () =>
  open(async (desk, page) => {
    await desk.shapes();
    await desk.find('circle');
    await desk.tab('Log');
    const lines = page.locator('#log-lines > li');
    assert.match(await lines.first().textContent(), /Find “circle”.*\d (ms|s)/);
    assert.match(await lines.nth(1).textContent(), /Look at shapes\.png/);
    assert.ok((await lines.first().locator('.stages li').count()) >= 2);
    await page.getByRole('button', { name: 'Clear the log' }).click();
    assert.equal(await lines.count(), 0);
  }));

test('a server that forgot the picture gets it again, a busy one is asked again, a silent one is said', () =>
  open(
    async (desk, page) => {
      await desk.shapes();
      const once = (status, headers = {}) =>
        page.route('**/segment', (route) => route.fulfill({ status, headers, json: { detail: 'no' } }), { times: 1 });
      await once(404);
      await desk.click(AT.star);
      await desk.idle();
      assert.equal(desk.requests.filter((r) => r === 'POST /api/images').length, 2);
      assert.ok((await desk.rows().count()) >= 1);
      await once(429, { 'retry-after': '1' });
      await desk.click(AT.star, { shift: true });
      await desk.idle();
      await desk.tab('Log');
      assert.match(await page.locator('#log-lines').textContent(), /busy, asking again in 1 s/);
      assert.ok(await page.getByRole('alert').isHidden());
      await page.route('**/segment', (route) => route.abort());
      await desk.click(AT.heart);
      await page.locator('#error-words', { hasText: 'The server does not answer. Is it still running?' }).waitFor();
      await page.unroute('**/segment');
      await desk.asking(() => desk.click(AT.square));
      assert.ok(await page.getByRole('alert').isHidden(), 'over once it answers');
    },
    { wrong: ['404', '429', 'ERR_FAILED'] },
  ));

test('a server with a key asks for it', () =>
  open(
    async (desk, page) => {
      assert.ok(await page.locator('#welcome').isHidden());
      await page.getByLabel('Key', { exact: true }).last().fill('the wrong key');
      await page.getByRole('button', { name: 'Go on' }).click();
      await page.waitForFunction(() => /the one given is not right/.test(document.querySelector('#error-words').textContent));
      await check(page, 'the key');
      await page.fill('#key', 'playground-key');
      await page.getByRole('button', { name: 'Go on' }).click();
      await desk.shapes();
      await desk.asking(() => desk.click(AT.star));
      assert.match(await page.locator('#code').textContent(), /Authorization: Key \$FAL_KEY/);
    },
    { url: process.env.PLAYGROUND_LOCKED_URL, wrong: ['401'] },
  ));
