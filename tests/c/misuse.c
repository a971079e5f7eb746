/* Everything a host can get wrong without undefined behaviour of its own, and the status that it gets for it. */
#include "check.h"

static const char *dir;
static uint8_t pixels[3 * 100 * 100];

static sam3_image_view view_of(uint32_t width, uint32_t height) {
    sam3_image_view view;
    memset(&view, 0, sizeof view);
    view.size = sizeof view;
    view.format = SAM3_FORMAT_RGB8;
    view.width = width;
    view.height = height;
    view.data = pixels;
    return view;
}

/* An address that no object of the type can have. */
#define ODD(type) ((type *)(void *)((char *)aligned + 1))
static uint64_t aligned[8];

/* Counts what is given back. */
static void count(void *user) { (*(int *)user)++; }

static void frees_take_null(void) {
    sam3_error_free(NULL);
    sam3_devices_free(NULL);
    sam3_model_options_free(NULL);
    sam3_segment_options_free(NULL);
    sam3_model_free(NULL);
    sam3_session_free(NULL);
    sam3_image_free(NULL);
    sam3_prompt_free(NULL);
    sam3_result_free(NULL);
    sam3_polygons_free(NULL);
    sam3_job_free(NULL);
    sam3_cancel(NULL);
    sam3_job_cancel(NULL);
    CHECK(sam3_model_clone(NULL) == NULL && sam3_image_clone(NULL) == NULL && sam3_result_clone(NULL) == NULL);
    CHECK(sam3_error_status(NULL) == SAM3_OK && sam3_error_message(NULL)[0] == 0);
    CHECK(sam3_devices_count(NULL) == 0 && sam3_polygons_count(NULL) == 0 && sam3_result_count(NULL) == 0);
    CHECK(sam3_result_width(NULL) == 0 && sam3_result_height(NULL) == 0 && sam3_result_timing_count(NULL) == 0);
    CHECK(sam3_image_width(NULL) == 0 && sam3_image_height(NULL) == 0 && sam3_image_timing_count(NULL) == 0);
    CHECK(sam3_devices_count(ODD(sam3_devices)) == 0 && sam3_result_count(ODD(sam3_result)) == 0);
}

static void nulls_are_refused(sam3_model *model, sam3_session *session, sam3_image *image, sam3_prompt *concept,
                              sam3_prompt *object, sam3_result *result) {
    int32_t bad = SAM3_INVALID_ARGUMENT;
    sam3_image_view view = view_of(8, 8);
    const sam3_prompt *prompts[] = {concept, NULL};
    sam3_box box = {0, 0, 1, 1};
    sam3_model *m = NULL;
    sam3_session *s = NULL;
    sam3_image *i = NULL;
    sam3_result *r = NULL;
    sam3_job *j = NULL;
    sam3_polygons *p = NULL;
    const char *text = NULL;
    const uint32_t *counts = NULL;
    size_t size = 0;
    float f = 0;

    FAILS(bad, "out", sam3_devices_new(NULL, &error));
    FAILS(bad, "devices", sam3_devices_get(NULL, 0, NULL, &error));
    FAILS(bad, "out", sam3_model_options_new(NULL, &error));
    FAILS(bad, "options", sam3_model_options_set_threads(NULL, 1, &error));
    FAILS(bad, "options", sam3_model_options_set_device(NULL, 0, 0, &error));
    FAILS(bad, "options", sam3_model_options_set_isa(NULL, NULL, &error));
    FAILS(bad, "options", sam3_model_options_set_precision(NULL, 0, &error));
    FAILS(bad, "options", sam3_model_options_set_log(NULL, 0, NULL, NULL, &error));
    FAILS(bad, "out", sam3_segment_options_new(NULL, &error));
    FAILS(bad, "options", sam3_segment_options_set_threshold(NULL, 0.5f, &error));
    FAILS(bad, "options", sam3_segment_options_set_mask_threshold(NULL, 0.5f, &error));
    FAILS(bad, "options", sam3_segment_options_set_max_instances(NULL, 1, &error));
    FAILS(bad, "options", sam3_segment_options_set_multimask(NULL, 1, &error));
    FAILS(bad, "options", sam3_segment_options_set_semantic(NULL, 1, &error));
    FAILS(bad, "path", sam3_model_open(NULL, NULL, &m, &error));
    FAILS(bad, "out", sam3_model_open(dir, NULL, NULL, &error));
    FAILS(bad, "out", sam3_model_open_demo(NULL, NULL, &error));
    FAILS(bad, "config", sam3_model_open_memory(NULL, 5, pixels, 5, NULL, 0, NULL, &m, &error));
    FAILS(bad, "weights", sam3_model_open_memory(pixels, 5, NULL, 5, NULL, 0, NULL, &m, &error));
    FAILS(bad, "tokenizer", sam3_model_open_memory(pixels, 5, pixels, 5, NULL, 5, NULL, &m, &error));
    /* What is lent is given back whatever else is wrong, once. */
    int back = 0;
    FAILS(bad, "config", sam3_model_open_lent(NULL, 5, pixels, 5, NULL, 0, count, &back, NULL, &m, &error));
    FAILS(bad, "weights", sam3_model_open_lent(pixels, 5, NULL, 5, NULL, 0, count, &back, NULL, &m, &error));
    FAILS(bad, "tokenizer", sam3_model_open_lent(pixels, 5, pixels, 5, NULL, 5, count, &back, NULL, &m, &error));
    FAILS(bad, "out", sam3_model_open_lent(pixels, 5, pixels, 5, NULL, 0, count, &back, NULL, NULL, &error));
    FAILS(SAM3_CHECKPOINT, "config", sam3_model_open_lent(pixels, 9, pixels, 9, NULL, 0, count, &back, NULL, &m, &error));
    FAILS(SAM3_CHECKPOINT, "config", sam3_model_open_lent(pixels, 9, pixels, 9, NULL, 0, NULL, NULL, NULL, &m, &error));
    CHECK(back == 5);
    FAILS(bad, "reader", sam3_model_open_reader(NULL, NULL, &m, &error));
    FAILS(bad, "model", sam3_model_get_info(NULL, NULL, &error));
    FAILS(bad, "info", sam3_model_get_info(model, NULL, &error));
    FAILS(bad, "model", sam3_session_new(NULL, &s, &error));
    FAILS(bad, "out", sam3_session_new(model, NULL, &error));
    FAILS(bad, "session", sam3_session_set_progress(NULL, NULL, NULL, &error));
    FAILS(bad, "session", sam3_encode(NULL, &view, &i, &error));
    FAILS(bad, "view", sam3_encode(session, NULL, &i, &error));
    FAILS(bad, "out", sam3_encode(session, &view, NULL, &error));
    FAILS(bad, "path", sam3_encode_file(session, NULL, &i, &error));
    FAILS(bad, "bytes", sam3_encode_bytes(session, NULL, 9, &i, &error));
    FAILS(bad, "session", sam3_segment(NULL, image, prompts, 1, NULL, &r, &error));
    FAILS(bad, "image", sam3_segment(session, NULL, prompts, 1, NULL, &r, &error));
    FAILS(bad, "prompts", sam3_segment(session, image, NULL, 1, NULL, &r, &error));
    FAILS(bad, "prompts[i]", sam3_segment(session, image, prompts, 2, NULL, &r, &error));
    FAILS(bad, "prompt", sam3_segment(session, image, NULL, 0, NULL, &r, &error));
    FAILS(bad, "out", sam3_segment(session, image, prompts, 1, NULL, NULL, &error));
    FAILS(bad, "view", sam3_run(session, NULL, prompts, 1, NULL, NULL, &r, &error));
    FAILS(bad, "session", sam3_submit_encode(NULL, &view, &j, &error));
    FAILS(bad, "view", sam3_submit_encode(session, NULL, &j, &error));
    FAILS(bad, "out", sam3_submit_encode(session, &view, NULL, &error));
    FAILS(bad, "image", sam3_submit_segment(session, NULL, prompts, 1, NULL, &j, &error));
    FAILS(bad, "view", sam3_submit_run(session, NULL, prompts, 1, NULL, &j, &error));
    FAILS(bad, "job", sam3_job_poll(NULL, NULL, &error));
    FAILS(bad, "job", sam3_job_wait(NULL, 0, NULL, &error));
    FAILS(bad, "job", sam3_job_take(NULL, NULL, NULL, &error));
    FAILS(bad, "out", sam3_prompt_new_concept("x", NULL, &error));
    FAILS(bad, "out", sam3_prompt_new_object(NULL, &error));
    FAILS(bad, "prompt", sam3_prompt_add_exemplar(NULL, &box, 1, &error));
    FAILS(bad, "place", sam3_prompt_add_exemplar(concept, NULL, 1, &error));
    FAILS(bad, "prompt", sam3_prompt_add_points(NULL, NULL, 0, &error));
    FAILS(bad, "points", sam3_prompt_add_points(object, NULL, 1, &error));
    FAILS(bad, "place", sam3_prompt_set_box(object, NULL, &error));
    FAILS(bad, "mask", sam3_prompt_set_mask(object, NULL, 4, 4, 0, &error));
    FAILS(bad, "logits", sam3_prompt_set_logits(object, NULL, 4, &error));
    FAILS(bad, "result", sam3_prompt_set_previous(object, NULL, 0, &error));
    FAILS(bad, "result", sam3_result_instance(NULL, 0, NULL, &error));
    FAILS(bad, "instance", sam3_result_instance(result, 0, NULL, &error));
    FAILS(bad, "presence", sam3_result_presence(result, 0, NULL, &error));
    FAILS(bad, "result", sam3_result_presence(NULL, 0, &f, &error));
    FAILS(bad, "result", sam3_result_timing(NULL, 0, NULL, NULL, &error));
    FAILS(bad, "image", sam3_image_timing(NULL, 0, NULL, NULL, &error));
    FAILS(bad, "result", sam3_result_mask(NULL, 0, 0, 0, NULL, 0, &size, &error));
    FAILS(bad, "size", sam3_result_mask(result, 0, 0, 0, NULL, 0, NULL, &error));
    FAILS(bad, "view", sam3_result_mask_view(result, 0, 0, 0, NULL, &error));
    FAILS(bad, "result", sam3_result_rle(NULL, 0, 0, &text, &error));
    FAILS(bad, "text", sam3_result_rle(result, 0, 0, NULL, &error));
    FAILS(bad, "counts", sam3_result_rle_counts(result, 0, NULL, &size, &error));
    FAILS(bad, "length", sam3_result_rle_counts(result, 0, &counts, NULL, &error));
    FAILS(bad, "result", sam3_result_polygons(NULL, 0, 0, &p, &error));
    FAILS(bad, "out", sam3_result_polygons(result, 0, 0, NULL, &error));
    FAILS(bad, "polygons", sam3_polygons_ring(NULL, 0, NULL, &error));
    CHECK(m == NULL && s == NULL && i == NULL && r == NULL && j == NULL && p == NULL);

    /* Misaligned handles and variables. */
    FAILS(bad, "divisible", sam3_session_new(ODD(sam3_model), &s, &error));
    FAILS(bad, "divisible", sam3_session_new(model, ODD(sam3_session *), &error));
    FAILS(bad, "divisible", sam3_encode(session, ODD(sam3_image_view), &i, &error));
    FAILS(bad, "divisible", sam3_prompt_add_points(object, ODD(sam3_point), 1, &error));
    FAILS(bad, "divisible", sam3_result_instance(result, 0, ODD(sam3_instance), &error));
    /* No place for the message: the status is all there is. Without any, too. */
    CHECK(sam3_session_new(model, &s, ODD(sam3_error *)) == bad && s == NULL);
    CHECK(sam3_session_new(NULL, &s, NULL) == bad && s == NULL);
    sam3_model_free(ODD(sam3_model));
}

static void numbers_are_checked(sam3_session *session, sam3_image *image, sam3_prompt *concept, sam3_prompt *object,
                                sam3_result *result) {
    int32_t bad = SAM3_INVALID_ARGUMENT;
    sam3_model_options *options = NULL;
    OK(sam3_model_options_new(&options, &error));
    FAILS(bad, "kind 9", sam3_model_options_set_device(options, 9, 0, &error));
    FAILS(bad, "index 1", sam3_model_options_set_device(options, SAM3_DEVICE_CPU, 1, &error));
    FAILS(bad, "threads", sam3_model_options_set_threads(options, UINT32_MAX, &error));
    FAILS(bad, "precision", sam3_model_options_set_precision(options, 77, &error));
    FAILS(bad, "level", sam3_model_options_set_log(options, 5, NULL, NULL, &error));
    FAILS(bad, "UTF-8", sam3_model_options_set_isa(options, "\xff", &error));
    sam3_model *model = NULL;
    OK(sam3_model_options_set_isa(options, "mmx", &error));
    FAILS(bad, "mmx", sam3_model_open(dir, options, &model, &error));
    OK(sam3_model_options_set_isa(options, "", &error));
    OK(sam3_model_options_set_device(options, SAM3_DEVICE_CPU, 0, &error));
    OK(sam3_model_options_set_precision(options, SAM3_PRECISION_BF16, &error));
    FAILS(SAM3_UNSUPPORTED, "precision", sam3_model_open(dir, options, &model, &error));
    OK(sam3_model_options_set_precision(options, SAM3_PRECISION_F32, &error));
    OK(sam3_model_options_set_device(options, SAM3_DEVICE_CUDA, 99, &error));
    CHECK(sam3_model_open(dir, options, &model, NULL) != SAM3_OK && model == NULL);
    sam3_model_options_free(options);

    sam3_segment_options *wanted = NULL;
    OK(sam3_segment_options_new(&wanted, &error));
    float wrong[] = {-0.1f, 1.1f, NAN, INFINITY};
    for (int i = 0; i < 4; i++) {
        FAILS(bad, "threshold", sam3_segment_options_set_threshold(wanted, wrong[i], &error));
        FAILS(bad, "threshold", sam3_segment_options_set_mask_threshold(wanted, wrong[i], &error));
    }
    FAILS(bad, "multimask", sam3_segment_options_set_multimask(wanted, 2, &error));
    FAILS(bad, "semantic", sam3_segment_options_set_semantic(wanted, 2, &error));
    sam3_segment_options_free(wanted);

    /* Checkpoints. */
    FAILS(SAM3_IO, "/nowhere/", sam3_model_open("/nowhere/at/all", NULL, &model, &error));
    FAILS(bad, "UTF-8", sam3_model_open("\xc3\x28", NULL, &model, &error));
    FAILS(SAM3_CHECKPOINT, "config", sam3_model_open_memory(pixels, 9, pixels, 9, NULL, 0, NULL, &model, &error));
    if (strstr(sam3_build_info(), "demo-model: no") != NULL) {
        FAILS(SAM3_UNSUPPORTED, "demo", sam3_model_open_demo(NULL, &model, &error));
    } else {
        CHECK(sam3_model_open_demo(NULL, &model, &error) == SAM3_OK && error == NULL);
        sam3_model_free(model);
        model = NULL;
    }
    sam3_reader reader;
    memset(&reader, 0, sizeof reader);
    reader.size = sizeof reader;
    FAILS(bad, "callbacks", sam3_model_open_reader(&reader, NULL, &model, &error));
    reader.size = 3;
    FAILS(bad, "sizeof(sam3_reader)", sam3_model_open_reader(&reader, NULL, &model, &error));
    CHECK(model == NULL);

    /* Pictures. */
    sam3_image *none = NULL;
    sam3_image_view view = view_of(8, 8);
    view.size = 0;
    FAILS(bad, "sizeof(sam3_image_view)", sam3_encode(session, &view, &none, &error));
    view = view_of(8, 8);
    view.format = 7;
    FAILS(bad, "format", sam3_encode(session, &view, &none, &error));
    uint32_t sides[][2] = {{0, 8}, {8, 0}, {65536, 8}, {8, 65536}, {UINT32_MAX, UINT32_MAX}};
    for (int i = 0; i < 5; i++) {
        view = view_of(sides[i][0], sides[i][1]);
        FAILS(bad, "pixels a side", sam3_encode(session, &view, &none, &error));
    }
    int64_t strides[] = {1, 23, -1, -23, INT64_MAX, INT64_MIN};
    for (int i = 0; i < 6; i++) {
        view = view_of(8, 8);
        view.stride = strides[i];
        FAILS(bad, i < 4 ? "stride" : "address space", sam3_encode(session, &view, &none, &error));
    }
    view = view_of(8, 8);
    view.data = NULL;
    FAILS(bad, "data", sam3_encode(session, &view, &none, &error));
    FAILS(SAM3_IO, "/nowhere", sam3_encode_file(session, "/nowhere.png", &none, &error));
    FAILS(SAM3_UNSUPPORTED, "", sam3_encode_bytes(session, NULL, 0, &none, &error));
    FAILS(SAM3_UNSUPPORTED, "", sam3_encode_bytes(session, (const uint8_t *)"no picture", 10, &none, &error));
    FAILS(SAM3_IMAGE, "", sam3_encode_bytes(session, (const uint8_t *)"\x89PNG\r\n\x1a\n broken", 16, &none, &error));
    CHECK(none == NULL);

    /* A struct of a newer header: fine as long as it asks for nothing that is not known. */
    struct {
        sam3_image_view view;
        uint64_t more;
    } newer;
    memset(&newer, 0, sizeof newer);
    newer.view = view_of(100, 100);
    newer.view.size = sizeof newer;
    OK(sam3_encode(session, &newer.view, &none, &error));
    sam3_image_free(none);
    newer.more = 1;
    FAILS(SAM3_UNSUPPORTED, "too old", sam3_encode(session, &newer.view, &none, &error));

    /* Prompts. */
    sam3_result *r = NULL;
    sam3_box outside = {-5, 0, 1, 1}, inside = {0, 0, 4, 4};
    sam3_point far = {1e9f, 0, 1}, odd = {1, 1, 2};
    const sam3_prompt *prompts[1];
    FAILS(bad, "concept", sam3_prompt_add_exemplar(object, &inside, 1, &error));
    FAILS(bad, "object", sam3_prompt_set_box(concept, &inside, &error));
    FAILS(bad, "object", sam3_prompt_add_points(concept, NULL, 0, &error));
    FAILS(bad, "object", sam3_prompt_set_previous(concept, result, 0, &error));
    FAILS(bad, "positive", sam3_prompt_add_exemplar(concept, &inside, 2, &error));
    FAILS(bad, "positive", sam3_prompt_add_points(object, &odd, 1, &error));
    FAILS(bad, "pixels a side", sam3_prompt_set_mask(object, pixels, 0, 4, 0, &error));
    FAILS(bad, "stride", sam3_prompt_set_mask(object, pixels, 4, 4, 3, &error));
    FAILS(bad, "side", sam3_prompt_set_logits(object, (const float *)(const void *)aligned, 0, &error));
    FAILS(bad, "UTF-8", sam3_prompt_new_concept("\xff\xfe", (sam3_prompt **)(void *)&prompts[0], &error));
    FAILS(bad, "instance", sam3_prompt_set_previous(object, result, 1000, &error));
    sam3_prompt *made = NULL;
    OK(sam3_prompt_new_object(&made, &error));
    prompts[0] = made;
    FAILS(bad, "point, a box or a mask", sam3_segment(session, image, prompts, 1, NULL, &r, &error));
    OK(sam3_prompt_set_box(made, &outside, &error));
    FAILS(bad, "within the picture", sam3_segment(session, image, prompts, 1, NULL, &r, &error));
    OK(sam3_prompt_set_box(made, &inside, &error));
    OK(sam3_prompt_add_points(made, &far, 1, &error));
    FAILS(bad, "within the picture", sam3_segment(session, image, prompts, 1, NULL, &r, &error));
    sam3_prompt_free(made);
    OK(sam3_prompt_new_object(&made, &error));
    float logits[9] = {0};
    OK(sam3_prompt_set_logits(made, logits, 3, &error));
    prompts[0] = made;
    FAILS(bad, "found 3", sam3_segment(session, image, prompts, 1, NULL, &r, &error));
    logits[4] = NAN;
    FAILS(bad, "finite", sam3_prompt_set_logits(made, logits, 3, &error));
    sam3_prompt_free(made);
    OK(sam3_prompt_new_concept("  ", &made, &error));
    prompts[0] = made;
    FAILS(bad, "phrase", sam3_segment(session, image, prompts, 1, NULL, &r, &error));
    sam3_prompt_free(made);
    char long_phrase[4000];
    for (size_t i = 0; i + 1 < sizeof long_phrase; i++) long_phrase[i] = i % 2 ? ' ' : 'a';
    long_phrase[sizeof long_phrase - 1] = 0;
    OK(sam3_prompt_new_concept(long_phrase, &made, &error));
    prompts[0] = made;
    FAILS(bad, "token", sam3_segment(session, image, prompts, 1, NULL, &r, &error));
    sam3_prompt_free(made);
    CHECK(r == NULL);

    /* Results. */
    sam3_instance found;
    memset(&found, 0, sizeof found);
    FAILS(bad, "sizeof(sam3_instance)", sam3_result_instance(result, 0, &found, &error));
    found.size = sizeof found;
    FAILS(bad, "instance", sam3_result_instance(result, sam3_result_count(result), &found, &error));
    float presence = 0;
    FAILS(bad, "prompt", sam3_result_presence(result, 9, &presence, &error));
    FAILS(bad, "stage", sam3_result_timing(result, 99, NULL, NULL, &error));
    FAILS(bad, "stage", sam3_image_timing(image, 99, NULL, NULL, &error));
    size_t size = 0;
    FAILS(bad, "format", sam3_result_mask(result, 0, 9, 0, NULL, 0, &size, &error));
    FAILS(bad, "space", sam3_result_mask(result, 0, 0, 9, NULL, 0, &size, &error));
    FAILS(bad, "instance", sam3_result_mask(result, UINT32_MAX, 0, 0, NULL, 0, &size, &error));
    FAILS(bad, "stride", sam3_result_mask(result, 0, 0, 0, NULL, 1, &size, &error));
    FAILS(bad, "address space", sam3_result_mask(result, 0, 0, 0, NULL, SIZE_MAX, &size, &error));
    FAILS(bad, "semantic", sam3_result_semantic(result, 0, 0, 0, NULL, 0, &size, &error));
    FAILS(bad, "prompt", sam3_result_semantic(result, 99, 0, 0, NULL, 0, &size, &error));
    sam3_mask_view lent;
    memset(&lent, 0, sizeof lent);
    lent.size = sizeof lent;
    FAILS(bad, "format", sam3_result_mask_view(result, 0, 4, 0, &lent, &error));
    FAILS(bad, "space", sam3_result_mask_view(result, 0, 0, 2, &lent, &error));
    FAILS(bad, "semantic", sam3_result_semantic_view(result, 0, 0, 0, &lent, &error));
    const char *text = NULL;
    FAILS(bad, "kind", sam3_result_rle(result, 0, 2, &text, &error));
    sam3_polygons *polygons = NULL;
    FAILS(bad, "tolerance", sam3_result_polygons(result, 0, -1, &polygons, &error));
    FAILS(bad, "tolerance", sam3_result_polygons(result, 0, NAN, &polygons, &error));
    CHECK(polygons == NULL);

    /* A buffer that is one byte short: told how long it must be, and not touched. The heap's checkers watch its end. */
    OK(sam3_result_mask(result, 0, SAM3_MASK_U8, SAM3_SPACE_PICTURE, NULL, 0, &size, &error));
    CHECK(size > 1);
    size_t need = size, has = size - 1;
    uint8_t *buffer = malloc(need - 1);
    CHECK(buffer != NULL);
    memset(buffer, 7, need - 1);
    FAILS(bad, "buffer", sam3_result_mask(result, 0, SAM3_MASK_U8, SAM3_SPACE_PICTURE, buffer, 0, &has, &error));
    CHECK(has == need);
    for (size_t i = 0; i < need - 1; i++) CHECK(buffer[i] == 7);
    free(buffer);
    buffer = malloc(need);
    CHECK(buffer != NULL);
    OK(sam3_result_mask(result, 0, SAM3_MASK_U8, SAM3_SPACE_PICTURE, buffer, 0, &size, &error));
    free(buffer);
    float *floats = malloc(need * 4 + 8);
    size = need * 4 + 8;
    FAILS(bad, "multiples of 4",
          sam3_result_mask(result, 0, SAM3_MASK_LOGITS_F32, SAM3_SPACE_PICTURE, (uint8_t *)floats + 1, 0, &size, &error));
    free(floats);
}

/* Cancels at the n-th step. */
static int32_t countdown(void *user, uint32_t stage, float fraction) {
    (void)stage, (void)fraction;
    return --*(int *)user == 0;
}

static void cancels_at_every_step(sam3_session *session, sam3_prompt *concept, sam3_prompt *object) {
    const sam3_prompt *prompts[] = {concept, object};
    sam3_image_view view = view_of(100, 100);
    int left = 0, n;
    OK(sam3_session_set_progress(session, countdown, &left, &error));
    for (n = 1; n < 1000; n++) {
        left = n;
        sam3_image *image = NULL;
        sam3_result *result = NULL;
        int32_t status = sam3_run(session, &view, prompts, 2, NULL, &image, &result, NULL);
        if (status == SAM3_OK) {
            CHECK(left > 0);
            sam3_image_free(image);
            sam3_result_free(result);
            break;
        }
        CHECK(status == SAM3_CANCELLED && image == NULL && result == NULL);
    }
    CHECK(n > 10 && n < 1000);
    OK(sam3_session_set_progress(session, NULL, NULL, &error));

    /* Without a call nothing is cancelled, and the next one goes through. */
    sam3_cancel(session);
    sam3_image *image = NULL;
    OK(sam3_encode(session, &view, &image, &error));
    sam3_image_free(image);

    /* Jobs that are freed, or cancelled, at once. */
    for (int i = 0; i < 10; i++) {
        sam3_job *job = NULL;
        OK(sam3_submit_run(session, &view, prompts, 2, NULL, &job, &error));
        if (i % 2) {
            sam3_job_cancel(job);
            FAILS(SAM3_CANCELLED, "cancelled", sam3_job_take(job, NULL, NULL, &error));
        } else if (i % 4) {
            sam3_cancel(session);
            FAILS(SAM3_CANCELLED, "cancelled", sam3_job_take(job, NULL, NULL, &error));
        }
        sam3_job_free(job);
    }
    OK(sam3_encode(session, &view, &image, &error));
    sam3_image_free(image);
}

/* A callback that calls back. */
static sam3_session *inner;
static int32_t reenter(void *user, uint32_t stage, float fraction) {
    (void)stage, (void)fraction;
    sam3_image_view view = view_of(8, 8);
    sam3_image *image = NULL;
    sam3_job *job = NULL;
    FAILS(SAM3_BUSY, "call in progress", sam3_encode(inner, &view, &image, &error));
    FAILS(SAM3_BUSY, "call in progress", sam3_submit_encode(inner, &view, &job, &error));
    CHECK(image == NULL && job == NULL);
    (*(int *)user)++;
    /* Replacing the callback while it runs is fine. */
    OK(sam3_session_set_progress(inner, NULL, NULL, &error));
    return 0;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    dir = argv[1];
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 37);
    frees_take_null();

    sam3_model_options *options = NULL;
    sam3_model *model = NULL;
    sam3_session *session = NULL;
    sam3_image *image = NULL;
    sam3_prompt *concept = NULL, *object = NULL;
    sam3_result *result = NULL;
    OK(sam3_model_options_new(&options, &error));
    OK(sam3_model_options_set_threads(options, 2, &error));
    OK(sam3_model_open(dir, options, &model, &error));
    sam3_model_options_free(options);
    OK(sam3_session_new(model, &session, &error));
    sam3_image_view view = view_of(100, 100);
    OK(sam3_encode(session, &view, &image, &error));
    OK(sam3_prompt_new_concept("cat", &concept, &error));
    OK(sam3_prompt_new_object(&object, &error));
    sam3_point middle = {50, 50, 1};
    OK(sam3_prompt_add_points(object, &middle, 1, &error));
    const sam3_prompt *prompts[] = {concept, object};
    OK(sam3_segment(session, image, prompts, 2, NULL, &result, &error));
    CHECK(sam3_result_count(result) >= 1);

    nulls_are_refused(model, session, image, concept, object, result);
    numbers_are_checked(session, image, concept, object, result);
    cancels_at_every_step(session, concept, object);
    int calls = 0;
    inner = session;
    OK(sam3_session_set_progress(session, reenter, &calls, &error));
    sam3_image *again = NULL;
    OK(sam3_encode(session, &view, &again, &error));
    CHECK(calls == 1);

    /* Jobs whose session, model, picture and prompts are gone before them. */
    sam3_job *job = NULL;
    OK(sam3_submit_segment(session, again, prompts, 2, NULL, &job, &error));
    sam3_image_free(again);
    sam3_session_free(session);
    sam3_model_free(model);
    sam3_image_free(image);
    sam3_prompt_free(object);
    sam3_prompt_free(concept);
    sam3_result *late = NULL;
    OK(sam3_job_take(job, NULL, &late, &error));
    sam3_job_free(job);
    CHECK(sam3_result_count(late) >= 1 && instance_of(late, 0).score == instance_of(late, 0).score);
    sam3_result_free(late);
    sam3_result_free(result);
    return 0;
}
