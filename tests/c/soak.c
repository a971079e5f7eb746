/* Models made and freed over and over, in shuffled order, with a job now and then: memory and threads stay flat. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include "process.h"

static void round_of(const char *dir, int n) {
    sam3_model *model = NULL;
    sam3_session *session = NULL;
    sam3_image *image = NULL;
    sam3_prompt *prompt = NULL;
    sam3_result *result = NULL;
    sam3_job *job = NULL;
    sam3_model_options *options = NULL;
    OK(sam3_model_options_new(&options, &error));
    OK(sam3_model_options_set_threads(options, 1 + (uint32_t)n % 3, &error));
    OK(sam3_model_open(dir, options, &model, &error));
    sam3_model_options_free(options);
    OK(sam3_session_new(model, &session, &error));
    OK(sam3_prompt_new_concept(n % 2 ? "cat" : "a dog", &prompt, &error));
    const sam3_prompt *prompts[] = {prompt};
    OK(sam3_encode_file(session, in(dir, "input.png"), &image, &error));
    OK(sam3_submit_segment(session, image, prompts, 1, NULL, &job, &error));
    if (n % 5) OK(sam3_job_take(job, NULL, &result, &error));
    for (int i = 0; i < 6; i++) {
        switch ((i * (n % 2 ? 1 : 5) + n) % 6) {
            case 0: sam3_model_free(model); break;
            case 1: sam3_session_free(session); break;
            case 2: sam3_image_free(image); break;
            case 3: sam3_prompt_free(prompt); break;
            case 4: sam3_result_free(result); break;
            default: sam3_job_free(job); break;
        }
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    int rounds = atoi(argv[2]);
    /* The allocator's arenas and the kernel's caches settle first. */
    for (int n = 0; n < rounds / 4; n++) round_of(argv[1], n);
    long before = resident_kib();
    int maps = mapping_count("");
    for (int n = 0; n < rounds; n++) {
        round_of(argv[1], n);
        if (thread_count() != 1) {
            fprintf(stderr, "round %d left %d threads\n", n, thread_count());
            return 1;
        }
    }
    long grown = resident_kib() - before;
    printf("%d rounds, resident memory %+ld KiB of %ld, mappings %+d\n", rounds, grown, before, mapping_count("") - maps);
    /* A leak of 4 KiB a round would be above this from 1000 rounds on. */
    CHECK(grown < 4096);
    CHECK(mapping_count("") - maps < 20);
    return 0;
}
