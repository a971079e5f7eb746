#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sam3.h"

/* Filled by a call that fails. */
static sam3_error *error = NULL;

/* Stops with the library's own words if a call failed. */
static void check(int32_t status) {
    if (status == SAM3_OK) return;
    fprintf(stderr, "%s: %s\n", sam3_status_name(status), sam3_error_message(error));
    sam3_error_free(error);
    exit(EXIT_FAILURE);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: %s CHECKPOINT|demo PICTURE PHRASE\n", argv[0]);
        return EXIT_FAILURE;
    }
    sam3_model *model = NULL;
    sam3_session *session = NULL;
    sam3_image *image = NULL;
    sam3_prompt *prompt = NULL;
    sam3_result *result = NULL;

    /* Once: the weights, those in the library or a checkpoint's, and scratch memory for one caller at a time. */
    int demo = strcmp(argv[1], "demo") == 0;
    check(demo ? sam3_model_open_demo(NULL, &model, &error) : sam3_model_open(argv[1], NULL, &model, &error));
    check(sam3_session_new(model, &session, &error));
    /* Once per picture. */
    check(sam3_encode_file(session, argv[2], &image, &error));
    /* Once per question. */
    check(sam3_prompt_new_concept(argv[3], &prompt, &error));
    const sam3_prompt *prompts[] = {prompt};
    check(sam3_segment(session, image, prompts, 1, NULL, &result, &error));

    for (uint32_t i = 0; i < sam3_result_count(result); i++) {
        sam3_instance found = {0};
        found.size = sizeof found;
        check(sam3_result_instance(result, i, &found, &error));
        sam3_mask_view mask = {0};
        mask.size = sizeof mask;
        check(sam3_result_mask_view(result, i, SAM3_MASK_U8, SAM3_SPACE_PICTURE, &mask, &error));
        /* mask.data[y * mask.stride + x] is 255 inside and 0 outside. */
        printf("%3" PRIu32 ": score %.3f, %" PRIu64 " pixels of %" PRIu32 "x%" PRIu32 ", box %.1f %.1f %.1f %.1f\n", i,
               (double)found.score, found.area, mask.width, mask.height, (double)found.bbox.x0,
               (double)found.bbox.y0, (double)found.bbox.x1, (double)found.bbox.y1);
    }

    /* In any order; NULL is fine. */
    sam3_result_free(result);
    sam3_prompt_free(prompt);
    sam3_image_free(image);
    sam3_session_free(session);
    sam3_model_free(model);
    return EXIT_SUCCESS;
}
