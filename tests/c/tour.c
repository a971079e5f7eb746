/* A tour of the whole interface. What it finds goes to files, which tests/c_abi.rs compares with the Rust interface. */
#include "check.h"

static FILE *output;

static void put(const void *bytes, size_t size) { CHECK(fwrite(bytes, 1, size, output) == size); }

/* Everything that a result says of one mask, in all forms, copied and lent. */
static void put_mask(const sam3_result *result, uint32_t index, int semantic) {
    for (uint32_t format = SAM3_MASK_U8; format <= SAM3_MASK_BITS; format++) {
        for (uint32_t space = SAM3_SPACE_PICTURE; space <= SAM3_SPACE_MODEL; space++) {
            sam3_mask_view view;
            memset(&view, 0, sizeof view);
            view.size = sizeof view;
            size_t need = 0, gap = 0;
            if (semantic) {
                OK(sam3_result_semantic_view(result, index, format, space, &view, &error));
                OK(sam3_result_semantic(result, index, format, space, NULL, 0, &need, &error));
            } else {
                OK(sam3_result_mask_view(result, index, format, space, &view, &error));
                OK(sam3_result_mask(result, index, format, space, NULL, 0, &need, &error));
            }
            CHECK(view.format == format && need == view.stride * view.height);
            put(view.data, need);

            /* The same with gaps between the rows, which stay as they are. */
            size_t row = (size_t)view.stride, stride = row + 12 - row % 4;
            gap = stride * (view.height - 1) + row;
            size_t size = gap + 7;
            uint8_t *copy = malloc(size);
            CHECK(copy != NULL);
            memset(copy, 0xa5, size);
            if (semantic) {
                OK(sam3_result_semantic(result, index, format, space, copy, stride, &size, &error));
            } else {
                OK(sam3_result_mask(result, index, format, space, copy, stride, &size, &error));
            }
            CHECK(size == gap);
            for (uint32_t y = 0; y < view.height; y++) {
                CHECK(memcmp(copy + y * stride, view.data + y * row, row) == 0);
                size_t end = y + 1 < view.height ? stride : row + 7;
                for (size_t x = row; x < end; x++) CHECK(copy[y * stride + x] == 0xa5);
            }
            free(copy);
        }
    }
}

static void put_result(const sam3_result *result, uint32_t prompts) {
    uint32_t count = sam3_result_count(result);
    put(&count, sizeof count);
    for (uint32_t i = 0; i < count; i++) {
        sam3_instance found = instance_of(result, i);
        put(&found.prompt, 4);
        put(&found.score, 4);
        put(&found.bbox, 16);
        put(&found.bounds, 16);
        put(&found.area, 8);
        put(&found.stability, 4);
        CHECK(isnan(found.predicted_iou) || found.predicted_iou == found.score);
        put_mask(result, i, 0);

        const char *text = NULL;
        OK(sam3_result_rle(result, i, SAM3_RLE_COCO, &text, &error));
        put(text, strlen(text));
        OK(sam3_result_rle(result, i, SAM3_RLE_PAIRS, &text, &error));
        put(text, strlen(text));
        const uint32_t *counts = NULL;
        size_t length = 0;
        OK(sam3_result_rle_counts(result, i, &counts, &length, &error));
        put(counts, length * 4);

        sam3_polygons *polygons = NULL;
        OK(sam3_result_polygons(result, i, 0.5f, &polygons, &error));
        for (uint32_t r = 0; r < sam3_polygons_count(polygons); r++) {
            sam3_ring ring;
            memset(&ring, 0, sizeof ring);
            ring.size = sizeof ring;
            OK(sam3_polygons_ring(polygons, r, &ring, &error));
            put(&ring.hole, 4);
            put(ring.xy, (size_t)ring.count * 8);
        }
        sam3_polygons_free(polygons);
    }
    for (uint32_t p = 0; p < prompts; p++) {
        float presence = -1;
        OK(sam3_result_presence(result, p, &presence, &error));
        put(&presence, 4);
    }
    CHECK(sam3_result_timing_count(result) >= 2);
    for (uint32_t i = 0; i < sam3_result_timing_count(result); i++) {
        const char *name = NULL;
        double ms = -1;
        OK(sam3_result_timing(result, i, &name, &ms, &error));
        CHECK(name[0] != 0 && ms >= 0);
    }
}

/* Callbacks count how often they are called. */
static int32_t on_progress(void *user, uint32_t stage, float fraction) {
    CHECK(stage <= SAM3_STAGE_SEGMENT && fraction >= 0 && fraction <= 1);
    (*(int *)user)++;
    return 0;
}

static void on_log(void *user, uint32_t level, const char *message) {
    CHECK(level >= SAM3_LOG_ERROR && level <= SAM3_LOG_DEBUG && strlen(message) > 10);
    (*(int *)user)++;
}

static int64_t size_of(void *user, const char *name) {
    FILE *file = fopen(in(user, name), "rb");
    if (file == NULL) return -1;
    CHECK(fseek(file, 0, SEEK_END) == 0);
    int64_t size = ftell(file);
    fclose(file);
    return size;
}

static int64_t read_at(void *user, const char *name, uint64_t offset, void *buffer, uint64_t size) {
    FILE *file = fopen(in(user, name), "rb");
    CHECK(file != NULL && fseek(file, (long)offset, SEEK_SET) == 0);
    /* Less than was asked for is fine. */
    size_t some = (size_t)(size < 10000 ? size : 10000), done = fread(buffer, 1, some, file);
    fclose(file);
    return (int64_t)done;
}

/* Weights that were lent, and how often they came back. */
struct lent {
    uint8_t *bytes;
    int returned;
};

static void give_back(void *user) {
    struct lent *lent = user;
    free(lent->bytes);
    lent->bytes = NULL;
    lent->returned++;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    const char *dir = argv[1], *out = argv[2];
    output = fopen(in(out, "tour.bin"), "wb");
    CHECK(output != NULL);

    CHECK(sam3_abi_version() == SAM3_ABI_VERSION);
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", SAM3_VERSION_MAJOR, SAM3_VERSION_MINOR, SAM3_VERSION_PATCH);
    CHECK(strcmp(version, sam3_version()) == 0 && strstr(sam3_build_info(), version) != NULL);
    CHECK(strcmp(sam3_status_name(SAM3_BUSY), "BUSY") == 0 && strcmp(sam3_status_name(99), "UNKNOWN") == 0);

    sam3_devices *devices = NULL;
    OK(sam3_devices_new(&devices, &error));
    sam3_device device;
    memset(&device, 0, sizeof device);
    device.size = sizeof device;
    OK(sam3_devices_get(devices, 0, &device, &error));
    CHECK(device.kind == SAM3_DEVICE_CPU && device.memory_total > device.memory_free && device.memory_free > 0);
    CHECK(strstr(device.isas, "scalar") != NULL && strstr(device.name, "CPU") != NULL);

    int steps = 0, lines = 0;
    sam3_model_options *options = NULL;
    OK(sam3_model_options_new(&options, &error));
    OK(sam3_model_options_set_device(options, SAM3_DEVICE_CPU, 0, &error));
    OK(sam3_model_options_set_threads(options, 2, &error));
    OK(sam3_model_options_set_precision(options, SAM3_PRECISION_F32, &error));
    OK(sam3_model_options_set_isa(options, getenv("SAM3_ISA"), &error));
    OK(sam3_model_options_set_log(options, SAM3_LOG_DEBUG, on_log, &lines, &error));
    sam3_devices_free(devices);

    sam3_model *model = NULL;
    OK(sam3_model_open(dir, options, &model, &error));
    CHECK(lines == 1);
    sam3_model_info info;
    memset(&info, 0, sizeof info);
    info.size = sizeof info;
    OK(sam3_model_get_info(model, &info, &error));
    CHECK(info.concepts == 1 && info.objects == 1 && info.parameters > 1000 && info.bytes > info.parameters);
    CHECK(strstr(info.device, "2 threads") != NULL);
    put(&info.image_side, 4);
    put(&info.mask_side, 4);

    sam3_session *session = NULL;
    sam3_image *image = NULL;
    OK(sam3_session_new(model, &session, &error));
    OK(sam3_session_set_progress(session, on_progress, &steps, &error));
    OK(sam3_encode_file(session, in(dir, "input.png"), &image, &error));
    CHECK(steps > 2 && lines == 2);
    uint32_t width = sam3_image_width(image), height = sam3_image_height(image);
    put(&width, 4);
    put(&height, 4);
    double encode_ms = 0;
    OK(sam3_image_timing(image, sam3_image_timing_count(image) - 1, NULL, &encode_ms, &error));
    CHECK(encode_ms > 0);
    OK(sam3_session_set_progress(session, NULL, NULL, &error));

    /* Two concepts and three objects in one call. */
    float w = (float)width, h = (float)height;
    sam3_prompt *prompts[5];
    OK(sam3_prompt_new_concept("cat", &prompts[0], &error));
    OK(sam3_prompt_new_concept(NULL, &prompts[1], &error));
    sam3_box some = {w / 8, h / 8, w / 2, h / 2}, other = {w / 2, h / 2, w, h};
    OK(sam3_prompt_add_exemplar(prompts[1], &some, 1, &error));
    OK(sam3_prompt_add_exemplar(prompts[1], &other, 0, &error));
    OK(sam3_prompt_new_object(&prompts[2], &error));
    sam3_point points[] = {{w / 3, h / 3, 1}, {w * 0.75f, h * 0.75f, 0}};
    OK(sam3_prompt_add_points(prompts[2], points, 2, &error));
    OK(sam3_prompt_new_object(&prompts[3], &error));
    OK(sam3_prompt_set_box(prompts[3], &some, &error));
    OK(sam3_prompt_new_object(&prompts[4], &error));
    uint8_t square[6 * 8] = {0};
    for (int y = 2; y < 4; y++) memset(square + 8 * y + 1, 200, 3);
    OK(sam3_prompt_set_mask(prompts[4], square, 6, 6, 8, &error));

    sam3_segment_options *wanted = NULL;
    OK(sam3_segment_options_new(&wanted, &error));
    OK(sam3_segment_options_set_threshold(wanted, 0.01f, &error));
    OK(sam3_segment_options_set_mask_threshold(wanted, 0.45f, &error));
    OK(sam3_segment_options_set_max_instances(wanted, 9, &error));
    OK(sam3_segment_options_set_semantic(wanted, 1, &error));
    OK(sam3_segment_options_set_multimask(wanted, 1, &error));
    sam3_result *result = NULL;
    const sam3_prompt *const *asked = (const sam3_prompt *const *)prompts;
    OK(sam3_segment(session, image, asked, 5, wanted, &result, &error));
    CHECK(sam3_result_width(result) == width && sam3_result_height(result) == height);
    CHECK(sam3_result_count(result) == 9);
    put_result(result, 5);
    put_mask(result, 0, 1);
    put_mask(result, 1, 1);

    /* Another round for the best object, with another click; and the same from numbers. */
    sam3_prompt *again = NULL;
    OK(sam3_prompt_new_object(&again, &error));
    uint32_t best = 0;
    while (instance_of(result, best).prompt < 2) best++;
    OK(sam3_prompt_set_previous(again, result, best, &error));
    OK(sam3_prompt_add_points(again, points, 1, &error));
    sam3_result *second = NULL;
    OK(sam3_segment(session, image, (const sam3_prompt *const *)&again, 1, NULL, &second, &error));
    put_result(second, 1);
    sam3_mask_view logits;
    memset(&logits, 0, sizeof logits);
    logits.size = sizeof logits;
    OK(sam3_result_mask_view(result, best, SAM3_MASK_LOGITS_F32, SAM3_SPACE_MODEL, &logits, &error));
    OK(sam3_prompt_set_logits(again, (const float *)(const void *)logits.data, logits.width, &error));
    sam3_result *third = NULL;
    OK(sam3_segment(session, image, (const sam3_prompt *const *)&again, 1, NULL, &third, &error));
    put_result(third, 1);

    /* The picture as pixels in every format, with gaps, upside down, and as a part of a larger one. */
    size_t bytes = 0;
    uint8_t *rgb = slurp(in(out, "rgb.bin"), &bytes);
    CHECK(bytes == (size_t)width * height * 3);
    for (uint32_t format = SAM3_FORMAT_RGB8; format <= SAM3_FORMAT_BGRX8; format++) {
        if (format == SAM3_FORMAT_GRAY8) continue;
        size_t per = format < SAM3_FORMAT_RGBA8 ? 3 : 4, stride = width * per + 13;
        uint8_t *pixels = malloc(stride * (height + 2));
        CHECK(pixels != NULL);
        memset(pixels, 0x5a, stride * (height + 2));
        int flip = format % 2 == 1;
        int swap = format == SAM3_FORMAT_BGR8 || format == SAM3_FORMAT_BGRA8 || format == SAM3_FORMAT_BGRX8;
        for (uint32_t y = 0; y < height; y++) {
            uint8_t *row = pixels + (flip ? height - y : y + 1) * stride + 5;
            for (uint32_t x = 0; x < width; x++) {
                const uint8_t *from = rgb + (y * width + x) * 3;
                uint8_t *to = row + x * per;
                to[0] = from[swap ? 2 : 0];
                to[1] = from[1];
                to[2] = from[swap ? 0 : 2];
                /* Alpha, or something that is not looked at. */
                if (per == 4) to[3] = format < SAM3_FORMAT_RGBX8 ? 255 : (uint8_t)(x + y);
            }
        }
        sam3_image_view view;
        memset(&view, 0, sizeof view);
        view.size = sizeof view;
        view.format = format;
        view.width = width;
        view.height = height;
        view.stride = flip ? -(int64_t)stride : (int64_t)stride;
        view.data = pixels + (flip ? height : 1) * stride + 5;
        sam3_image *seen = NULL;
        sam3_result *found = NULL;
        OK(sam3_run(session, &view, asked, 5, wanted, &seen, &found, &error));
        CHECK(sam3_image_width(seen) == width && sam3_image_height(seen) == height);
        put_result(found, 5);
        sam3_image_free(seen);
        sam3_result_free(found);

        /* The same as a job; the pixels are gone before it is done. */
        sam3_job *job = NULL;
        OK(sam3_submit_run(session, &view, asked, 5, wanted, &job, &error));
        memset(pixels, 0, stride * (height + 2));
        free(pixels);
        FAILS(SAM3_BUSY, "session", sam3_encode_file(session, in(dir, "input.png"), &seen, &error));
        uint32_t done = 2;
        OK(sam3_job_poll(job, &done, &error));
        CHECK(done <= 1);
        OK(sam3_job_wait(job, SAM3_WAIT_FOREVER, &done, &error));
        CHECK(done == 1);
        OK(sam3_job_take(job, NULL, &found, &error));
        put_result(found, 5);
        FAILS(SAM3_INVALID_ARGUMENT, "taken", sam3_job_take(job, NULL, NULL, &error));
        sam3_job_free(job);
        sam3_result_free(found);
    }
    free(rgb);

    /* Encoding and asking as two jobs, with the picture's own file. */
    uint8_t *png = slurp(in(dir, "input.png"), &bytes);
    sam3_image *from_bytes = NULL;
    OK(sam3_encode_bytes(session, png, bytes, &from_bytes, &error));
    free(png);
    sam3_job *job = NULL;
    sam3_result *found = NULL;
    OK(sam3_submit_segment(session, from_bytes, asked, 5, wanted, &job, &error));
    sam3_image_free(from_bytes);
    OK(sam3_job_take(job, NULL, &found, &error));
    sam3_job_free(job);
    put_result(found, 5);
    sam3_result_free(found);

    /* The same model from memory, from lent memory, and through callbacks. */
    size_t sizes[3];
    uint8_t *config = slurp(in(dir, "config.json"), &sizes[0]);
    uint8_t *weights = slurp(in(dir, "model.safetensors"), &sizes[1]);
    uint8_t *tokenizer = slurp(in(dir, "tokenizer.json"), &sizes[2]);
    sam3_reader reader;
    memset(&reader, 0, sizeof reader);
    reader.size = sizeof reader;
    reader.user = argv[1];
    reader.size_of = size_of;
    reader.read = read_at;
    struct lent lent = {weights, 0};
    for (int way = 0; way < 3; way++) {
        sam3_model *same = NULL;
        sam3_session *here = NULL;
        if (way == 0) {
            OK(sam3_model_open_memory(config, sizes[0], weights, sizes[1], tokenizer, sizes[2], options, &same, &error));
        } else if (way == 1) {
            OK(sam3_model_open_lent(config, sizes[0], weights, sizes[1], tokenizer, sizes[2], give_back, &lent, options,
                                    &same, &error));
            /* A CPU computes with the weights where they are. */
            CHECK(lent.returned == 0);
            free(config);
            free(tokenizer);
        } else {
            OK(sam3_model_open_reader(&reader, options, &same, &error));
        }
        OK(sam3_session_new(same, &here, &error));
        sam3_model_free(same);
        sam3_image *seen = NULL;
        OK(sam3_encode_file(here, in(dir, "input.png"), &seen, &error));
        OK(sam3_segment(here, seen, asked, 5, wanted, &found, &error));
        put_result(found, 5);
        /* A picture of another model. */
        sam3_result *none = NULL;
        FAILS(SAM3_INVALID_ARGUMENT, "another model", sam3_segment(session, seen, asked, 5, wanted, &none, &error));
        CHECK(none == NULL);
        sam3_result_free(found);
        sam3_session_free(here);
        CHECK(lent.returned == (way == 2));
        /* The last of all that came from the model. */
        sam3_image_free(seen);
        CHECK(lent.returned == (way >= 1));
    }
    CHECK(lines > 20);

    /* Results stay when all else is gone, and clones when the originals are. */
    sam3_result *kept = sam3_result_clone(result);
    sam3_image *kept_image = sam3_image_clone(image);
    sam3_model *kept_model = sam3_model_clone(model);
    for (int i = 0; i < 5; i++) sam3_prompt_free(prompts[i]);
    sam3_prompt_free(again);
    sam3_segment_options_free(wanted);
    sam3_model_options_free(options);
    sam3_model_free(model);
    sam3_image_free(image);
    sam3_session_free(session);
    sam3_result_free(result);
    CHECK(sam3_image_width(kept_image) == width);
    sam3_image_free(kept_image);
    OK(sam3_session_new(kept_model, &session, &error));
    sam3_model_free(kept_model);
    sam3_session_free(session);
    put_result(kept, 5);
    sam3_result_free(kept);
    sam3_result_free(second);
    sam3_result_free(third);
    CHECK(fclose(output) == 0);
    return 0;
}
