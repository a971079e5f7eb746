/* The library loaded, used and unloaded over and over, by a program that does not know it at link time. */
#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <pthread.h>

#include "process.h"
#include "sam3.h"

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            fprintf(stderr, "reload.c:%d: %s\n", __LINE__, #condition);          \
            exit(1);                                                             \
        }                                                                        \
    } while (0)

static const char *library, *dir;

/* ISO C has no cast from an object pointer to a function pointer, so its bytes are copied. */
#define GET(function)                                         \
    do {                                                      \
        void *symbol_ = dlsym(handle, #function);             \
        CHECK(symbol_ != NULL);                               \
        memcpy(&(my_##function), &symbol_, sizeof symbol_);   \
    } while (0)

static void *load(void) {
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) fprintf(stderr, "%s\n", dlerror());
    CHECK(handle != NULL);
    return handle;
}

static void *use(void *handle) {
    uint32_t (*my_sam3_abi_version)(void);
    int32_t (*my_sam3_model_open)(const char *, const sam3_model_options *, sam3_model **, sam3_error **);
    int32_t (*my_sam3_session_new)(const sam3_model *, sam3_session **, sam3_error **);
    int32_t (*my_sam3_encode_file)(sam3_session *, const char *, sam3_image **, sam3_error **);
    void (*my_sam3_model_free)(sam3_model *);
    void (*my_sam3_session_free)(sam3_session *);
    void (*my_sam3_image_free)(sam3_image *);
    GET(sam3_abi_version);
    GET(sam3_model_open);
    GET(sam3_session_new);
    GET(sam3_encode_file);
    GET(sam3_model_free);
    GET(sam3_session_free);
    GET(sam3_image_free);
    CHECK(my_sam3_abi_version() == SAM3_ABI_VERSION);
    sam3_model *model = NULL;
    sam3_session *session = NULL;
    sam3_image *image = NULL;
    char picture[4096];
    CHECK(snprintf(picture, sizeof picture, "%s/input.png", dir) > 0);
    CHECK(my_sam3_model_open(dir, NULL, &model, NULL) == SAM3_OK);
    CHECK(my_sam3_session_new(model, &session, NULL) == SAM3_OK);
    CHECK(my_sam3_encode_file(session, picture, &image, NULL) == SAM3_OK);
    my_sam3_image_free(image);
    my_sam3_session_free(session);
    my_sam3_model_free(model);
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 4);
    library = argv[1];
    dir = argv[2];
    int rounds = atoi(argv[3]), warm = rounds / 4, unloaded = 0;
    long before = 0;
    int maps = 0;
    for (int n = 0; n < warm + rounds; n++) {
        if (n == warm) {
            before = resident_kib();
            maps = mapping_count("");
        }
        /* Used on a thread that ends before: glibc keeps a library loaded while a living thread has a destructor of it
           to run, and Rust's standard library registers one on every thread that waits for another. */
        void *handle = load();
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, use, handle) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(mapping_count("libsam3") > 0 && dlclose(handle) == 0);
        CHECK(thread_count() == 1);
        unloaded += mapping_count("libsam3") == 0;
    }
    long grown = resident_kib() - before;
    int more = mapping_count("") - maps;
    printf("%d rounds, unloaded after %d, resident memory %+ld KiB of %ld, mappings %+d\n", warm + rounds, unloaded, grown,
           before, more);
    CHECK(unloaded == warm + rounds);
    CHECK(grown < 4096 && more < 20);
    /* And on this thread, which goes on living: the library may stay, but neither grows nor leaves threads. */
    for (int n = 0; n < 20; n++) {
        void *handle = load();
        (void)use(handle);
        CHECK(dlclose(handle) == 0 && thread_count() == 1);
    }
    printf("on the main thread: %d mappings of the library are left\n", mapping_count("libsam3"));
    return 0;
}
