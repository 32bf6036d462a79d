// Runs a fuzz target over every file of its corpus, so that bugs found by fuzzing stay fixed.
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

static int replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data;
    long size;

    if (!f || fseek(f, 0, SEEK_END) || (size = ftell(f)) < 0) {
        fprintf(stderr, "%s cannot be read\n", path);
        return 1;
    }
    rewind(f);
    // exactly as large as the input, so that a sanitizer sees every read past its end
    data = malloc((size_t)size);
    if (size && (!data || fread(data, (size_t)size, 1, f) != 1)) {
        fprintf(stderr, "%s cannot be read\n", path);
        return 1;
    }
    fclose(f);
    LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
    return 0;
}

int main(int argc, char **argv)
{
    int count = 0, failed = 0;
    DIR *d = argc > 1 ? opendir(argv[1]) : NULL;

    for (struct dirent *e; d && (e = readdir(d));) {
        char path[4096];
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", argv[1], e->d_name);
        failed += replay(path);
        count++;
    }
    if (d)
        closedir(d);
    LLVMFuzzerTestOneInput(NULL, 0);
    printf("%d inputs\n", count);
    return failed || !count;
}
