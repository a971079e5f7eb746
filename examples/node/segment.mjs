// Node.js through koffi: finds what a phrase names, says what it found, writes the masks.
//
//     npm install
//     SAM3_LIBRARY=PREFIX/lib/libsam3.so.0.1 node segment.mjs CHECKPOINT|demo PICTURE PHRASE [FOLDER]
//
// Calls of a second or so block the event loop here; koffi's `call.async(…)` runs one on a thread of its own. A session
// takes one call at a time.
import fs from 'node:fs';
import koffi from 'koffi';

const library = koffi.load(process.env.SAM3_LIBRARY ?? 'libsam3.so.0.1');
for (const name of ['model', 'model_options', 'session', 'image', 'prompt', 'segment_options', 'result', 'error']) {
    koffi.opaque(`sam3_${name}`);
}
koffi.struct('sam3_box', { x0: 'float', y0: 'float', x1: 'float', y1: 'float' });
koffi.struct('sam3_rect', { x: 'uint32_t', y: 'uint32_t', width: 'uint32_t', height: 'uint32_t' });
const Instance = koffi.struct('sam3_instance', {
    size: 'uint32_t', prompt: 'uint32_t', score: 'float', predicted_iou: 'float', stability: 'float', bbox: 'sam3_box',
    bounds: 'sam3_rect', reserved: 'uint32_t', area: 'uint64_t',
});
const MaskView = koffi.struct('sam3_mask_view', {
    size: 'uint32_t', format: 'uint32_t', width: 'uint32_t', height: 'uint32_t', stride: 'uint64_t', data: 'uint8_t *',
});

const message = library.func('const char *sam3_error_message(sam3_error *error)');
const statusName = library.func('const char *sam3_status_name(int32_t status)');
const freeError = library.func('void sam3_error_free(sam3_error *error)');

// A function that fails with an error as its last argument: here, with an exception.
function fallible(name, parameters) {
    const call = library.func(`int32_t sam3_${name}(${parameters}, _Out_ sam3_error **error)`);
    return (...values) => {
        const error = [null];
        const status = call(...values, error);
        if (status === 0) return;
        const text = `${statusName(status)}: ${message(error[0])}`;
        freeError(error[0]);
        throw new Error(text);
    };
}

// One that makes a handle, which it returns.
function maker(name, parameters) {
    const make = fallible(name, `${parameters}, _Out_ sam3_${name === 'segment' ? 'result' : name.split('_')[0]} **out`);
    return (...values) => {
        const out = [null];
        make(...values, out);
        return out[0];
    };
}

const modelOpen = maker('model_open', 'const char *path, sam3_model_options *options');
const modelOpenDemo = maker('model_open_demo', 'sam3_model_options *options');
const sessionNew = maker('session_new', 'sam3_model *model');
const promptNew = maker('prompt_new_concept', 'const char *text');
const segment = maker(
    'segment',
    'sam3_session *session, sam3_image *image, sam3_prompt **prompts, size_t count, sam3_segment_options *options',
);
const encodeFile = fallible('encode_file', 'sam3_session *session, const char *path, _Out_ sam3_image **out');
const count = library.func('uint32_t sam3_result_count(sam3_result *result)');
const instance = fallible('result_instance', 'sam3_result *result, uint32_t index, _Inout_ sam3_instance *found');
const maskView = fallible(
    'result_mask_view',
    'sam3_result *result, uint32_t index, uint32_t format, uint32_t space, _Inout_ sam3_mask_view *view',
);

const [checkpoint, picture, phrase, folder] = process.argv.slice(2);
if (phrase === undefined) {
    console.error('usage: node segment.mjs CHECKPOINT|demo PICTURE PHRASE [FOLDER]');
    process.exit(1);
}
const handles = [];
const keep = (type, handle) => {
    handles.push([type, handle]);
    return handle;
};
try {
    // Once: the model in the library, or a checkpoint.
    const model = keep('model', checkpoint === 'demo' ? modelOpenDemo(null) : modelOpen(checkpoint, null));
    const session = keep('session', sessionNew(model)); // once per thread
    const image = [null];
    encodeFile(session, picture, image); // once per picture
    keep('image', image[0]);
    const prompt = keep('prompt', promptNew(phrase));
    const result = keep('result', segment(session, image[0], [prompt], 1, null)); // once per question
    for (let i = 0; i < count(result); i++) {
        const found = { size: koffi.sizeof(Instance) };
        const mask = { size: koffi.sizeof(MaskView) };
        instance(result, i, found);
        maskView(result, i, 0, 0, mask); // SAM3_MASK_U8, SAM3_SPACE_PICTURE
        const box = ['x0', 'y0', 'x1', 'y1'].map((name) => found.bbox[name].toFixed(1)).join(' ');
        const size = `${found.area} pixels of ${mask.width}x${mask.height}`;
        console.log(`${String(i).padStart(3)}: score ${found.score.toFixed(3)}, ${size}, box ${box}`);
        if (folder !== undefined) {
            const pixels = koffi.decode(mask.data, 'uint8_t', Number(mask.stride) * mask.height); // 255 inside, 0 outside
            const header = Buffer.from(`P5 ${mask.width} ${mask.height} 255\n`);
            fs.writeFileSync(`${folder}/mask-${i}.pgm`, Buffer.concat([header, Buffer.from(pixels)]));
        }
    }
} catch (error) {
    console.error(error.message);
    process.exitCode = 1;
} finally {
    // In any order.
    for (const [type, handle] of handles) library.func(`void sam3_${type}_free(sam3_${type} *handle)`)(handle);
}
