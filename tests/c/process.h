/* What the kernel says of this process: threads, mappings, resident memory. Linux. */
#ifndef PROCESS_H
#define PROCESS_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline int thread_count(void) {
    DIR *tasks = opendir("/proc/self/task");
    int count = 0;
    if (tasks == NULL) abort();
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) count += entry->d_name[0] != '.';
    closedir(tasks);
    return count;
}

/* Mappings whose line holds `name`, all for "". */
static inline int mapping_count(const char *name) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[8192];
    int count = 0;
    if (maps == NULL) abort();
    while (fgets(line, sizeof line, maps) != NULL) count += strstr(line, name) != NULL;
    fclose(maps);
    return count;
}

static inline long resident_kib(void) {
    FILE *statm = fopen("/proc/self/statm", "r");
    long size = 0, resident = 0;
    if (statm == NULL || fscanf(statm, "%ld %ld", &size, &resident) != 2) abort();
    fclose(statm);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

#endif
