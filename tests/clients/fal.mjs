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
const input = { image_url: uri, prompt: 'red circle', detection_threshold: 0, return_multiple_masks: true, max_masks: 2 };

const steps = {
  async run() {
    const { data, requestId } = await fal.run('fal-ai/sam-3/image', { input });
    assert.equal(data.masks.length, 2);
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
    assert.equal(data.rle.length, 2);
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
    assert.equal(data.rle.length, 2);
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
    assert.equal(data.rle.length, 2);
    const blob = await fal.subscribe('fal-ai/sam-3/image', { input: { ...input, image_url: new Blob([picture], { type: 'image/png' }) } });
    assert.equal(blob.data.masks.length, 2);
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
