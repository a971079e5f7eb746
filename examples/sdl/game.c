/* A game loop with SDL2 that never waits: it submits the latest frame, goes on drawing, polls, and shows the mask as a
   texture over the frame when it is there.

       cc -std=c99 game.c $(pkg-config --cflags --libs sam3 sdl2) -o game
       ./game CHECKPOINT|demo [FRAMES [SCREENSHOT.bmp]]

   The frame is drawn on the CPU, 30 times a second; it is the picture to segment, and a click in the middle the question.
   It ends when the window is closed, or after so many frames, a mask among them, and says what they spent on segmentation.
   The model in the library answers within a frame or two. */
#define _GNU_SOURCE /* RUSAGE_THREAD */
#include <SDL.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "sam3.h"

enum { WIDTH = 640, HEIGHT = 360, FRAME_MS = 33 };
#define LIMIT_MS 4.0 /* What a frame may spend on segmentation, of its 33. */

static sam3_error *error = NULL;

static void check(int32_t status) {
    if (status == SAM3_OK) return;
    fprintf(stderr, "%s: %s\n", sam3_status_name(status), sam3_error_message(error));
    exit(EXIT_FAILURE);
}

static void check_sdl(int right) {
    if (right) return;
    fprintf(stderr, "SDL: %s\n", SDL_GetError());
    exit(EXIT_FAILURE);
}

static double now_ms(void) { return (double)SDL_GetPerformanceCounter() * 1e3 / (double)SDL_GetPerformanceFrequency(); }

/* How often the system took the processor away from this thread: time that it was not given is not time it waited. */
static long preempted(void) {
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nivcsw;
}

/* BGRX, as frame buffers lie in memory: a bright disc that wanders over a dark ground. */
static void draw(uint8_t *pixels, int frame) {
    int cx = WIDTH / 2 + frame % 80 - 40, cy = HEIGHT / 2 - frame % 50 + 25;
    for (int y = 0; y < HEIGHT; y++) {
        for (int x = 0; x < WIDTH; x++) {
            int inside = (x - cx) * (x - cx) + (y - cy) * (y - cy) < 8000;
            uint8_t *p = pixels + 4 * (y * WIDTH + x);
            p[0] = (uint8_t)(inside ? 200 : x / 8);
            p[1] = (uint8_t)(inside ? 220 : y / 8);
            p[2] = (uint8_t)(inside ? 240 : 30);
            p[3] = 0;
        }
    }
}

/* The mask as a texture that is red inside and clear outside. */
static void show(SDL_Texture *texture, const uint8_t *mask, uint8_t *argb) {
    for (int i = 0; i < WIDTH * HEIGHT; i++) {
        argb[4 * i + 2] = mask[i];
        argb[4 * i + 3] = mask[i] / 2;
    }
    check_sdl(SDL_UpdateTexture(texture, NULL, argb, 4 * WIDTH) == 0);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s CHECKPOINT|demo [FRAMES [SCREENSHOT.bmp]]\n", argv[0]);
        return EXIT_FAILURE;
    }
    int frames = argc > 2 ? atoi(argv[2]) : 300;
    static uint8_t frame[4 * WIDTH * HEIGHT], mask[WIDTH * HEIGHT], argb[4 * WIDTH * HEIGHT];
    check_sdl(SDL_Init(SDL_INIT_VIDEO) == 0);
    SDL_Window *window = SDL_CreateWindow("sam3", 0, 0, WIDTH, HEIGHT, 0);
    check_sdl(window != NULL);
    SDL_Renderer *renderer = SDL_CreateRenderer(window, -1, SDL_RENDERER_SOFTWARE);
    check_sdl(renderer != NULL);
    SDL_Texture *scene = SDL_CreateTexture(renderer, SDL_PIXELFORMAT_RGB888, SDL_TEXTUREACCESS_STREAMING, WIDTH, HEIGHT);
    SDL_Texture *over = SDL_CreateTexture(renderer, SDL_PIXELFORMAT_ARGB8888, SDL_TEXTUREACCESS_STREAMING, WIDTH, HEIGHT);
    check_sdl(scene != NULL && over != NULL && SDL_SetTextureBlendMode(over, SDL_BLENDMODE_BLEND) == 0);

    /* A core stays with the game. */
    sam3_model_options *options = NULL;
    sam3_model *model = NULL;
    sam3_session *session = NULL;
    sam3_prompt *prompt = NULL;
    sam3_job *job = NULL;
    check(sam3_model_options_new(&options, &error));
    int cores = SDL_GetCPUCount();
    check(sam3_model_options_set_threads(options, (uint32_t)(cores > 1 ? cores - 1 : 1), &error));
    int demo = strcmp(argv[1], "demo") == 0;
    check(demo ? sam3_model_open_demo(options, &model, &error) : sam3_model_open(argv[1], options, &model, &error));
    check(sam3_session_new(model, &session, &error));
    check(sam3_prompt_new_object(&prompt, &error));
    sam3_point middle = {WIDTH / 2.0f, HEIGHT / 2.0f, 1};
    check(sam3_prompt_add_points(prompt, &middle, 1, &error));
    const sam3_prompt *prompts[] = {prompt};
    sam3_image_view view;
    memset(&view, 0, sizeof view);
    view.size = sizeof view;
    view.format = SAM3_FORMAT_BGRX8;
    view.width = WIDTH;
    view.height = HEIGHT;
    view.data = frame;

    double worst = 0, total = 0;
    int n = 0, masks = 0, over_limit = 0, excused = 0, quit = 0;
    for (; !quit && (n < frames || masks == 0); n++) {
        double began = now_ms();
        for (SDL_Event event; SDL_PollEvent(&event);) {
            if (event.type == SDL_QUIT) quit = 1;
        }
        draw(frame, n);

        long before = preempted();
        double start = now_ms();
        uint32_t done = 0;
        if (job != NULL) check(sam3_job_poll(job, &done, &error));
        if (done) {
            sam3_result *result = NULL;
            size_t size = sizeof mask;
            check(sam3_job_take(job, NULL, &result, &error));
            check(sam3_result_mask(result, 0, SAM3_MASK_U8, SAM3_SPACE_PICTURE, mask, WIDTH, &size, &error));
            sam3_result_free(result);
            sam3_job_free(job); /* It is done, so this does not wait. */
            job = NULL;
        }
        /* The latest frame, as soon as the last one is answered; its pixels are copied. */
        if (job == NULL) check(sam3_submit_run(session, &view, prompts, 1, NULL, &job, &error));
        double spent = now_ms() - start;
        total += spent;
        if (spent > LIMIT_MS && preempted() > before) excused++;
        else if (spent > LIMIT_MS) over_limit++;
        if (spent > worst) worst = spent;

        if (done) show(over, mask, argb), masks++;
        check_sdl(SDL_UpdateTexture(scene, NULL, frame, 4 * WIDTH) == 0);
        SDL_RenderCopy(renderer, scene, NULL, NULL);
        if (masks > 0) SDL_RenderCopy(renderer, over, NULL, NULL);
        SDL_RenderPresent(renderer);
        double rest = FRAME_MS - (now_ms() - began);
        if (rest > 0) SDL_Delay((Uint32)rest);
    }
    printf("%d frames, %d masks; a frame spent %.3f ms on them, at worst %.3f ms; over %.0f ms: %d, and %d while the system "
           "ran something else\n",
           n, masks, total / (n > 0 ? n : 1), worst, LIMIT_MS, over_limit, excused);

    if (argc > 3) {
        SDL_Surface *shot = SDL_CreateRGBSurfaceWithFormat(0, WIDTH, HEIGHT, 24, SDL_PIXELFORMAT_RGB24);
        check_sdl(shot != NULL && SDL_RenderCopy(renderer, scene, NULL, NULL) == 0);
        check_sdl(SDL_RenderCopy(renderer, over, NULL, NULL) == 0);
        check_sdl(SDL_RenderReadPixels(renderer, NULL, SDL_PIXELFORMAT_RGB24, shot->pixels, shot->pitch) == 0);
        check_sdl(SDL_SaveBMP(shot, argv[3]) == 0);
        SDL_FreeSurface(shot);
    }
    sam3_job_free(job); /* Stops what is still running. */
    sam3_session_free(session);
    sam3_prompt_free(prompt);
    sam3_model_free(model);
    sam3_model_options_free(options);
    SDL_DestroyTexture(over);
    SDL_DestroyTexture(scene);
    SDL_DestroyRenderer(renderer);
    SDL_DestroyWindow(window);
    SDL_Quit();
    return EXIT_SUCCESS;
}
