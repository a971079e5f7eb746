/* What the programs of this folder share: checks that say where they failed, and files of bytes. */
#ifndef CHECK_H
#define CHECK_H

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sam3.h"

/* The library promises to leave this alone; every check looks at it. */
static sam3_error *error = NULL;

static inline void fail(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, what, sam3_error_message(error));
    exit(1);
}

/* A condition. */
#define CHECK(condition)                                        \
    do {                                                        \
        if (!(condition)) fail(__FILE__, __LINE__, #condition); \
    } while (0)

/* A call that must work, and leaves no error behind. */
#define OK(call)                                                                      \
    do {                                                                              \
        if ((call) != SAM3_OK || error != NULL) fail(__FILE__, __LINE__, #call);      \
    } while (0)

/* A call that must fail with `status`, an error that says the same, and a message that holds `words`. */
#define FAILS(status, words, call)                                                             \
    do {                                                                                       \
        int32_t found_ = (call);                                                               \
        if (found_ != (status) || error == NULL || sam3_error_status(error) != (status) ||     \
            strstr(sam3_error_message(error), (words)) == NULL) {                              \
            fprintf(stderr, "expected %d with \"%s\", found %d\n", (int)(status), words, (int)found_); \
            fail(__FILE__, __LINE__, #call);                                                   \
        }                                                                                      \
        sam3_error_free(error);                                                                \
        error = NULL;                                                                          \
    } while (0)

/* The path `dir/name`, valid until the next call. */
static inline const char *in(const char *dir, const char *name) {
    static char path[4096];
    CHECK((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) < sizeof path);
    return path;
}

/* All bytes of a file, to be freed. */
static inline uint8_t *slurp(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    CHECK(fseek(file, 0, SEEK_END) == 0);
    long end = ftell(file);
    CHECK(end >= 0);
    rewind(file);
    uint8_t *bytes = malloc((size_t)end + 1);
    CHECK(bytes != NULL && fread(bytes, 1, (size_t)end, file) == (size_t)end);
    fclose(file);
    *size = (size_t)end;
    return bytes;
}

static inline sam3_instance instance_of(const sam3_result *result, uint32_t index) {
    sam3_instance found;
    memset(&found, 0, sizeof found);
    found.size = sizeof found;
    OK(sam3_result_instance(result, index, &found, &error));
    CHECK(found.size == sizeof found);
    return found;
}

#endif
