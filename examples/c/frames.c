/* A render loop that never waits: it submits a frame, goes on drawing, polls, and shows the mask when it is there. Here
   "drawing" is a sleep of a few milliseconds; what each frame spends on segmentation is measured and printed.

       cc -std=c99 frames.c $(pkg-config --cflags --libs sam3) -o frames
       ./frames CHECKPOINT|demo
*/
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sam3.h"

enum { WIDTH = 320, HEIGHT = 240, FRAMES = 200 };

static sam3_error *error = NULL;

static void check(int32_t status) {
    if (status == SAM3_OK) return;
    fprintf(stderr, "%s: %s\n", sam3_status_name(status), sam3_error_message(error));
    sam3_error_free(error);
    exit(EXIT_FAILURE);
}

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* BGRA, as swap chains have it: a bright disc that wanders over a dark ground. */
static void draw(uint8_t *pixels, int frame) {
    int cx = WIDTH / 2 + frame % 60, cy = HEIGHT / 2 - frame % 40;
    for (int y = 0; y < HEIGHT; y++) {
        for (int x = 0; x < WIDTH; x++) {
            int inside = (x - cx) * (x - cx) + (y - cy) * (y - cy) < 2500;
            uint8_t *p = pixels + 4 * (y * WIDTH + x);
            p[0] = p[1] = p[2] = inside ? 230 : 30;
            p[3] = 255;
        }
    }
    struct timespec rest = {0, 2000000};
    nanosleep(&rest, NULL);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s CHECKPOINT|demo\n", argv[0]);
        return EXIT_FAILURE;
    }
    static uint8_t frame[4 * WIDTH * HEIGHT], shown[WIDTH * HEIGHT];
    sam3_model *model = NULL;
    sam3_session *session = NULL;
    sam3_prompt *prompt = NULL;
    sam3_job *job = NULL;
    int demo = strcmp(argv[1], "demo") == 0;
    check(demo ? sam3_model_open_demo(NULL, &model, &error) : sam3_model_open(argv[1], NULL, &model, &error));
    check(sam3_session_new(model, &session, &error));
    check(sam3_prompt_new_object(&prompt, &error));
    sam3_point middle = {WIDTH / 2.0f, HEIGHT / 2.0f, 1};
    check(sam3_prompt_add_points(prompt, &middle, 1, &error));
    const sam3_prompt *prompts[] = {prompt};

    sam3_image_view view;
    memset(&view, 0, sizeof view);
    view.size = sizeof view;
    view.format = SAM3_FORMAT_BGRA8;
    view.width = WIDTH;
    view.height = HEIGHT;
    view.data = frame;

    double worst = 0, total = 0;
    int masks = 0;
    for (int n = 0; n < FRAMES || masks < 2; n++) {
        draw(frame, n);
        double start = now_ms();
        uint32_t done = 0;
        if (job != NULL) check(sam3_job_poll(job, &done, &error));
        if (done) {
            sam3_result *result = NULL;
            size_t size = sizeof shown;
            check(sam3_job_take(job, NULL, &result, &error));
            /* What a texture would be updated with. */
            check(sam3_result_mask(result, 0, SAM3_MASK_U8, SAM3_SPACE_PICTURE, shown, WIDTH, &size, &error));
            sam3_result_free(result);
            sam3_job_free(job); /* It is done, so this does not wait. */
            job = NULL;
            masks++;
        }
        /* The latest frame, as soon as the last one is answered. The pixels are copied: drawing may go on. */
        if (job == NULL) check(sam3_submit_run(session, &view, prompts, 1, NULL, &job, &error));
        double spent = now_ms() - start;
        total += spent;
        if (spent > worst) worst = spent;
    }
    printf("%d masks; a frame spent %.3f ms on them, at worst %.3f ms\n", masks, total / FRAMES, worst);

    sam3_job_free(job); /* Stops what is still running. */
    sam3_session_free(session);
    sam3_prompt_free(prompt);
    sam3_model_free(model);
    return EXIT_SUCCESS;
}
