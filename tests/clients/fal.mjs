// @fal-ai/client, unmodified, through `proxyUrl`: fal.mjs http://127.0.0.1:PORT PICTURE
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(`${process.env.NODE_PATH ?? process.cwd()}/x.js`);
const { createFalClient, ApiError, ValidationError } = require('@fal-ai/client');
const [base, file] = process.argv.slice(2);
const picture = readFileSync(file);
const uri = `data:image/png;base64,${picture.toString('base64')}`;
const fal = createFalClient({ proxyUrl: { url: `${base}/api/fal/proxy`, when: 'always' }, credentials: 'any:key' });
const input = { image_url: uri, prompt: 'circle', return_multiple_masks: true, max_masks: 8 };

/** Centres of two shapes of the picture, which is 800 pixels wide. */
const [CIRCLE, STAR] = [[150, 140], [400, 150]];

/** Whether run lengths as fal writes them cover a place. */
const covers = (rle, [x, y]) => {
  const numbers = rle.split(' ').map(Number);
  const at = y * 800 + x + 1;
  return numbers.some((start, i) => i % 2 === 0 && start <= at && at < start + numbers[i + 1]);
};

/** Fails unless one of the masks is the circle, and none the star. */
function circles({ rle }) {
  assert.ok(rle.some((one) => covers(one, CIRCLE)), 'the circle is found');
  assert.ok(!rle.some((one) => covers(one, STAR)), 'the star is none');
}

const steps = {
  async run() {
    const { data, requestId } = await fal.run('fal-ai/sam-3/image', { input });
    assert.ok(data.masks.length >= 1 && data.masks.every((m) => m.width === 800 && m.height === 600));
    assert.match(requestId, /^[0-9a-f]{32}$/);
    const image = await fetch(data.image.url);
    assert.equal(image.headers.get('content-type'), 'image/png');
    assert.equal((await image.arrayBuffer()).byteLength, data.image.file_size);
  },
  async subscribe() {
    const seen = [];
    const { data } = await fal.subscribe('fal-ai/sam-3/image-rle', {
      input, logs: true, pollInterval: 50, onQueueUpdate: (update) => seen.push(update),
    });
    circles(data);
    assert.equal(seen.at(-1).status, 'COMPLETED');
    assert.ok(seen.at(-1).logs.length >= 2);
  },
  async 'subscribe by stream'() {
    // Streams go to queue.fal.run whatever proxyUrl says; a middleware is the documented way to move them.
    const moved = createFalClient({
      credentials: 'any:key',
      requestMiddleware: async (request) => ({ ...request, url: moveTo(request.url) }),
      fetch: (url, options) => fetch(moveTo(String(url)), options),
    });
    const seen = [];
    const { data } = await moved.subscribe('fal-ai/sam-3/image-rle', {
      input, logs: true, mode: 'streaming', onQueueUpdate: (update) => seen.push(update),
    });
    circles(data);
    assert.equal(seen.at(-1).status, 'COMPLETED');
  },
  async queue() {
    const { request_id: requestId } = await fal.queue.submit('fal-ai/sam-3/image/embed', { input: { image_url: uri } });
    await fal.queue.subscribeToStatus('fal-ai/sam-3', { requestId, pollInterval: 50 });
    const { data } = await fal.queue.result('fal-ai/sam-3', { requestId });
    assert.equal(Buffer.from(data.embedding_b64, 'base64').length, 4 * data.shape.reduce((a, b) => a * b));
  },
  async upload() {
    const url = await fal.storage.upload(new Blob([picture], { type: 'image/png' }));
    assert.ok(url.startsWith(`${base}/files/`), url);
    const { data } = await fal.run('fal-ai/sam-3-1/image-rle', { input: { ...input, image_url: url } });
    circles(data);
    const blob = await fal.subscribe('fal-ai/sam-3/image', { input: { ...input, image_url: new Blob([picture], { type: 'image/png' }) } });
    assert.equal(blob.data.masks.length, data.rle.length);
  },
  async 'points and boxes'() {
    const star = await fal.run('fal-ai/sam-3/image-rle', { input: { image_url: uri, point_prompts: [{ x: STAR[0], y: STAR[1], label: 1 }] } });
    assert.equal(typeof star.data.rle, 'string');
    assert.ok(covers(star.data.rle, STAR) && !covers(star.data.rle, CIRCLE));
    const box = await fal.run('fal-ai/sam-3/image-rle', {
      input: { image_url: uri, box_prompts: [{ x_min: 40, y_min: 325, x_max: 240, y_max: 510 }], include_scores: true, include_boxes: true },
    });
    assert.ok(covers(box.data.rle, [140, 440]));
    assert.equal(box.data.boxes[0].length, 4);
    assert.ok(box.data.scores[0] > 0.5 && box.data.metadata[0].index === 0);
  },
  async cancel() {
    const { request_id: requestId } = await fal.queue.submit('fal-ai/sam-3/image', { input });
    // Either it was in time, or the client is told that it was not.
    try {
      await fal.queue.cancel('fal-ai/sam-3', { requestId });
    } catch (error) {
      assert.equal(error.status, 400);
      assert.equal(error.body.status, 'ALREADY_COMPLETED');
    }
  },
  async errors() {
    const wrong = fal.run('fal-ai/sam-3/image', { input: { ...input, max_masks: 99, output_format: 'gif' } });
    await assert.rejects(wrong, (error) => {
      assert.ok(error instanceof ValidationError);
      assert.equal(error.getFieldErrors('max_masks')[0].type, 'less_than_equal');
      assert.equal(error.fieldErrors.length, 2);
      return true;
    });
    await assert.rejects(fal.subscribe('fal-ai/sam-3/image', { input: { ...input, image_url: 'nonsense' }, pollInterval: 50 }), ValidationError);
    await assert.rejects(fal.run('fal-ai/sam-2/image', { input }), (error) => error instanceof ApiError && error.status === 404);
  },
};

function moveTo(url) {
  return url
    .replace('https://queue.fal.run', `${base}/queue`)
    .replace('https://fal.run', base)
    .replace('https://rest.fal.ai', base);
}

for (const [name, step] of Object.entries(steps)) {
  await step();
  console.log(`ok ${name}`);
}
