// exported MODEL DATA: the tokenizer and networks of a trained cascade compute the same in C as in
// torch when they were exported. DATA contains text.safetensors and one file per stage, written by
// training/export.py.
#include "golden.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

// Some sixty layers of sums over up to 2,304 terms: each is good to about sqrt(2304) 6e-8 = 3e-6 of
// its size, and they add up like independent errors: sqrt(60) 3e-6 = 2e-5.
static const double relative_tolerance = 2e-5;

static void check(struct golden *g, const char *model, const char *stage)
{
    char name[64], dir[GOLDEN_PATH];
    struct bundle b;

    snprintf(name, sizeof name, "%s.safetensors", stage);
    if (!bundle_open(g, name, NULL, &b))
        return;
    if (!strcmp(stage, "text")) {
        snprintf(dir, sizeof dir, "%s/base/text_encoder", model);
        check_encoder(&b, dir);
        snprintf(dir, sizeof dir, "%s/base/tokenizer", model);
        check_prompts(&b, dir);
    } else {
        snprintf(dir, sizeof dir, "%s/%s/unet", model, stage);
        check_forward(&b, dir);
    }
    bundle_close(&b);
}

int main(int argc, char **argv)
{
    // The last one belongs to a preset, which a cascade need not have.
    static const char *const stages[] = {"text", "base", "sr256", "sr1024", "base-fast"};
    const int optional = 4;
    char fast[GOLDEN_PATH];
    struct golden g = {.relative = relative_tolerance};
    struct fault why = {0};

    if (argc != 3) {
        fputs("usage: exported MODEL DATA\n", stderr);
        return 2;
    }
    g.root = argv[2];
    if (ops_device_open(&(struct ops_open_params){.dtype = "f32"}, &g.dev, &why)) {
        fprintf(stderr, "exported: %s\n", why.msg);
        return 2;
    }
    snprintf(fast, sizeof fast, "%s/%s", argv[1], stages[optional]);
    for (int i = 0; i < optional + !access(fast, F_OK); i++)
        check(&g, argv[1], stages[i]);
    ops_device_close(&g.dev);
    printf("largest error %.3f of its tolerance\n%d passed, %d failed\n", g.worst, g.passed,
           g.failed);
    return g.failed || !g.passed ? 1 : 0;
}
