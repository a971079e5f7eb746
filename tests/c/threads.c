/* Several threads: sessions of one model side by side, one session fought over, cancellation from elsewhere. Their stacks
   are as small as the header says that they may be. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "check.h"

enum { THREADS = 4, ROUNDS = 6, STACK = 256 * 1024 };

static sam3_model *model;
static sam3_session *contested;
static sam3_image *picture;
static sam3_prompt *prompt;
static uint64_t area;
static float score;
static atomic_int busy, answered, cancelled;

/* Every thread has a place for errors of its own. */
static void must(int32_t status, sam3_error **e, int line) {
    if (status != SAM3_OK) {
        fprintf(stderr, "threads.c:%d: %s\n", line, sam3_error_message(*e));
        exit(1);
    }
}
#define MUST(call) must(call, &mine, __LINE__)

static void same_answer(const sam3_result *result) {
    sam3_error *mine = NULL;
    sam3_instance found;
    memset(&found, 0, sizeof found);
    found.size = sizeof found;
    MUST(sam3_result_instance(result, 0, &found, &mine));
    CHECK(found.area == area && found.score == score);
}

/* Everything of this thread's own, from the files on. */
static void *own_model(void *dir) {
    sam3_error *mine = NULL;
    sam3_model *own = NULL;
    sam3_session *session = NULL;
    sam3_image *image = NULL;
    sam3_prompt *concept = NULL;
    sam3_result *result = NULL;
    MUST(sam3_model_open(dir, NULL, &own, &mine));
    MUST(sam3_session_new(own, &session, &mine));
    char path[4096];
    CHECK(snprintf(path, sizeof path, "%s/input.png", (const char *)dir) < (int)sizeof path);
    MUST(sam3_encode_file(session, path, &image, &mine));
    MUST(sam3_prompt_new_concept("cat", &concept, &mine));
    const sam3_prompt *both[] = {concept, prompt};
    MUST(sam3_segment(session, image, both, 2, NULL, &result, &mine));
    for (uint32_t i = 0; i < sam3_result_count(result); i++) {
        sam3_polygons *polygons = NULL;
        MUST(sam3_result_polygons(result, i, 1, &polygons, &mine));
        sam3_polygons_free(polygons);
    }
    sam3_result_free(result);
    sam3_prompt_free(concept);
    sam3_image_free(image);
    sam3_session_free(session);
    sam3_model_free(own);
    return NULL;
}

/* The picture and the prompt are everybody's, the session is this thread's own. */
static void *own_session(void *unused) {
    (void)unused;
    sam3_error *mine = NULL;
    sam3_session *session = NULL;
    MUST(sam3_session_new(model, &session, &mine));
    for (int i = 0; i < ROUNDS; i++) {
        sam3_result *result = NULL;
        MUST(sam3_segment(session, picture, (const sam3_prompt *const *)&prompt, 1, NULL, &result, &mine));
        same_answer(result);
        sam3_result_free(result);
    }
    sam3_session_free(session);
    return NULL;
}

/* All use one session: each call is answered rightly or refused. */
static void *one_session(void *unused) {
    (void)unused;
    for (int i = 0; i < ROUNDS * 3; i++) {
        sam3_error *mine = NULL;
        sam3_result *result = NULL;
        int32_t status =
            sam3_segment(contested, picture, (const sam3_prompt *const *)&prompt, 1, NULL, &result, &mine);
        if (status == SAM3_OK) {
            same_answer(result);
            atomic_fetch_add(&answered, 1);
        } else {
            CHECK(status == SAM3_BUSY && result == NULL);
            atomic_fetch_add(&busy, 1);
        }
        sam3_error_free(mine);
        sam3_result_free(result);
    }
    return NULL;
}

/* One result, asked for the same forms at once. */
static void *one_result(void *result) {
    sam3_error *mine = NULL;
    for (uint32_t format = SAM3_MASK_U8; format <= SAM3_MASK_BITS; format++) {
        sam3_mask_view view;
        memset(&view, 0, sizeof view);
        view.size = sizeof view;
        MUST(sam3_result_mask_view(result, 0, format, SAM3_SPACE_PICTURE, &view, &mine));
        CHECK(view.data != NULL);
    }
    const char *text = NULL;
    MUST(sam3_result_rle(result, 0, SAM3_RLE_COCO, &text, &mine));
    CHECK(text[0] != 0);
    return NULL;
}

static void nap(long microseconds) {
    struct timespec time = {0, microseconds * 1000};
    nanosleep(&time, NULL);
}

static atomic_int stop;
static void *canceller(void *unused) {
    (void)unused;
    while (!atomic_load(&stop)) {
        nap(300);
        sam3_cancel(contested);
    }
    return NULL;
}

static void together(void *(*work)(void *), void *argument) {
    pthread_t threads[THREADS];
    pthread_attr_t small;
    CHECK(pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, STACK) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], &small, work, argument) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    OK(sam3_model_open(argv[1], NULL, &model, &error));
    OK(sam3_session_new(model, &contested, &error));
    OK(sam3_encode_file(contested, in(argv[1], "input.png"), &picture, &error));
    OK(sam3_prompt_new_object(&prompt, &error));
    sam3_point point = {(float)sam3_image_width(picture) / 2, (float)sam3_image_height(picture) / 2, 1};
    OK(sam3_prompt_add_points(prompt, &point, 1, &error));
    sam3_result *result = NULL;
    OK(sam3_segment(contested, picture, (const sam3_prompt *const *)&prompt, 1, NULL, &result, &error));
    sam3_instance found = instance_of(result, 0);
    area = found.area;
    score = found.score;

    together(own_model, argv[1]);
    together(own_session, NULL);
    together(one_session, NULL);
    together(one_result, result);
    CHECK(answered > 0 && answered + busy == THREADS * ROUNDS * 3);

    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, canceller, NULL) == 0);
    for (int i = 0; i < 200 && (cancelled < 5 || i < 20); i++) {
        sam3_image *image = NULL;
        int32_t status = sam3_encode_file(contested, in(argv[1], "input.png"), &image, NULL);
        CHECK(status == SAM3_OK || (status == SAM3_CANCELLED && image == NULL));
        if (status == SAM3_CANCELLED) atomic_fetch_add(&cancelled, 1);
        sam3_image_free(image);
    }
    atomic_store(&stop, 1);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(cancelled > 0);
    printf("%d answered, %d busy, %d cancelled\n", answered, busy, cancelled);

    sam3_result_free(result);
    sam3_model_free(model);
    sam3_session_free(contested);
    sam3_image_free(picture);
    sam3_prompt_free(prompt);
    return 0;
}
