// The code that the page offers does what the page shows: it is run, as it stands.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { AT, open, SHAPES, useBrowser } from './harness.mjs';

useBrowser();

/** Python that has fal-client. */
const { PYTHON } = process.env;

/** A folder with the picture in it, as the code expects. */
function folder(f) {
  const dir = mkdtempSync(join(tmpdir(), 'playground-'));
  copyFileSync(SHAPES, join(dir, 'shapes.png'));
  return f(dir, (name, ...args) => execFileSync(name, args, { cwd: dir, encoding: 'utf8', timeout: 120_000, stdio: ['ignore', 'pipe', 'pipe'] }), () => rmSync(dir, { recursive: true }));
}

/** Asks for several things at once; returns how many masks the page shows for them. */
async function ask(desk) {
  await desk.shapes();
  await desk.find("it's a $(touch broken) `circle` \"");
  await desk.find('circle');
  await desk.asking(() => desk.click(AT.star));
  await desk.page.getByRole('button', { name: 'New object' }).click();
  await desk.asking(() => desk.drag([300, 320], [500, 525]));
  await desk.asking(() => desk.click(AT.triangle, { shift: true }));
  return desk.rows().count();
}

const code = async (desk, language) => {
  await desk.page.locator('#panel-code label', { hasText: language }).click();
  return desk.page.locator('#code').textContent();
};

test('nothing asked is nothing to copy', () =>
  open(async (desk, page) => {
    await desk.shapes();
    assert.match(await page.locator('#code').textContent(), /^Ask for something first/);
    assert.ok(await page.locator('#code-copy').isDisabled());
  }));

test('curl, JavaScript, Python and the command line find what the page shows', () =>
  open(async (desk, page) => {
    const masks = await ask(desk);
    assert.ok(masks >= 2);
    await desk.tab('Settings');
    await page.selectOption('#set-answer', 'image-rle');
    await page.selectOption('#set-rle_format', 'coco');
    await desk.tab('Code');
    await folder(async (dir, run, done) => {
      const curl = JSON.parse(run('bash', '-c', await code(desk, 'curl')));
      assert.equal(curl.rle.length, masks);
      assert.equal(curl.scores.length, masks);
      assert.deepEqual(curl.rle[0].size, [600, 800]);

      const script = (await code(desk, 'JavaScript')).replace('console.log(data.rle)', 'console.log(JSON.stringify(data.rle))');
      symlinkSync(join(process.env.PLAYGROUND_DEPS, 'node_modules'), join(dir, 'node_modules'));
      writeFileSync(join(dir, 'call.mjs'), script);
      assert.deepEqual(JSON.parse(run('node', 'call.mjs')), curl.rle);

      const python = (await code(desk, 'Python')).replace('print(result["rle"])', 'import json\nprint(json.dumps(result["rle"]))');
      assert.ok(python.includes('fal_client.run('));
      assert.deepEqual(JSON.parse(run(PYTHON, '-c', python)), curl.rle);

      const line = await code(desk, 'Command line');
      const { PLAYGROUND_BINARY: binary, PLAYGROUND_MODEL: model } = process.env;
      // The page knows the name of the model, and not where it lies.
      const command = line.replace(/--model \S+/, '').replace(/^sam3/, `'${binary}'`).trimEnd();
      const out = JSON.parse(run('bash', '-c', `${command} ${model ? `--model '${model}'` : ''}`));
      assert.deepEqual(out.instances.map((i) => i.segmentation), curl.rle);
      assert.ok(!existsSync(join(dir, 'broken')));
      done();
    });
  }));

test('words that mean something to a shell mean nothing', () =>
  open(async (desk) => {
    await desk.shapes();
    const phrase = "it's a $(touch broken) `touch broken` \\ \"circle\" $HOME";
    await desk.find(phrase);
    await folder(async (dir, run, done) => {
      // What curl would send, and what the program would be given.
      const curl = (await code(desk, 'curl')).replace(/^curl .*\\\n.* -d @- /, 'cat ').replace(/\$\(base64.*?\\n'\)/, '');
      assert.equal(JSON.parse(run('bash', '-c', curl)).prompt, phrase);
      const line = (await code(desk, 'Command line')).replace(/^sam3 segment/, "printf '%s\\n'");
      assert.ok(run('bash', '-c', line).split('\n').includes(phrase));
      const script = await code(desk, 'JavaScript');
      assert.ok(script.includes(JSON.stringify(phrase)));
      assert.deepEqual(readdirSync(dir), ['shapes.png']);
      done();
    });
  }));

test('the code is copied, and run on the page', () =>
  open(async (desk, page) => {
    await desk.shapes();
    await desk.asking(() => desk.click(AT.star));
    await page.locator('#code-copy').click();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), await page.locator('#code').textContent());
    await page.getByRole('button', { name: 'Run it here' }).click();
    await page.locator('#answer-images img').first().waitFor();
    await page.waitForFunction(() => [...document.querySelectorAll('#answer-images img')].every((i) => i.naturalWidth === 800));
    assert.match(await page.locator('#answer-json').textContent(), /"masks"/);
    assert.ok(desk.requests.includes('POST /fal-ai/sam-3/image'));
    assert.equal(desk.requests.filter((r) => r === 'POST /api/images').length, 1, 'the picture is there already');
  }));
