// golden DIR [--dtype f32|f16] [--device NAME] [--quiet]: checks every fixture in DIR's
// manifest.json (with TEST_ONLY=TEXT in the environment, those whose name contains TEXT), and that
// DIR contains nothing else. The exit status is 0 only if everything matches.
#include "golden.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MANIFEST_BYTES = 64 << 20, MAX_FILES = 4096 };

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);

    return n >= m && !strcmp(text + n - m, end);
}

static const struct kind {
    const char *end;
    void (*tensors)(struct golden *g, const char *name, const struct json_t *fixture);
    void (*table)(struct golden *g, const char *name);
    bool device, half; // needs a device; has half-precision references
} kinds[] = {
    {.end = "/reference_text.safetensors", .tensors = check_clip, .device = true},
    {.end = "/reference_vae.safetensors", .tensors = check_vae, .device = true, .half = true},
    {.end = "/token_ids.json", .table = check_tokens},
    {.end = "/nmt_nfkc_codepoints.json", .table = check_normalization},
    {.end = "/caption_preprocessing.json", .table = check_captions},
    {.end = "/reference.safetensors", .tensors = check_t5, .device = true, .half = true},
    {.end = "/reference_unet.safetensors", .tensors = check_unet, .device = true, .half = true},
    {.end = "/reference_unet_rect.safetensors",
     .tensors = check_unet,
     .device = true,
     .half = true},
    {.end = "/reference_pipeline.safetensors", .tensors = check_pipeline, .device = true},
    {.end = "/resize_sizes.json", .table = check_resize_sizes},
    {.end = "/reference_resize.safetensors", .tensors = check_resize},
    {.end = "/strength_steps.json", .table = check_strength},
    {.end = "schedulers/betas.safetensors", .tensors = check_betas},
    {.end = "schedulers/timesteps.json", .table = check_timesteps},
    {.end = "schedulers/steps.safetensors", .tensors = check_steps, .device = true},
};

static void check_fixture(struct golden *g, const char *name, const struct json_t *fixture)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!ends_with(name, kinds[i].end))
            continue;
        if (g->dtype == DT_F16 && !kinds[i].half)
            golden_skip(g, name, "no half-precision reference");
        else if (kinds[i].tensors)
            kinds[i].tensors(g, name, fixture);
        else
            kinds[i].table(g, name);
        return;
    }
    golden_fail(g, name, "fixture", "no check knows this kind of file");
}

// ---- files that nobody looks at ---------------------------------------------------------------

// Files of a diffusers folder that are not fixtures; the loaders check them.
static bool is_model_file(const char *name)
{
    static const char *const folders[] = {
        "/unet/",
        "/vae/",
        "/text_encoder/",
        "/tokenizer/",
        "/scheduler/",
        "/configs/",
        "/image_noising_scheduler/",
        "/low_res_scheduler/",
    };

    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        if (strstr(name, folders[i]))
            return true;
    }
    return ends_with(name, "/model_index.json");
}

static void check_file(struct golden *g, const char *name)
{
    const char *slash = strchr(name, '/');

    if (json_find(json_find(g->manifest, "fixtures"), name) || is_model_file(name))
        return;
    if (!slash &&
        (!strcmp(name, "manifest.json") || !strcmp(name, "README.md") || ends_with(name, ".py")))
        return;
    golden_fail(g, name, "file", "neither a fixture nor part of a model");
}

static void walk(struct golden *g, const char *dir)
{
    char path[GOLDEN_PATH];
    struct dirent *d;
    DIR *list;

    snprintf(path, sizeof path, "%s/%s", g->root, dir);
    list = opendir(path);
    while (list && (d = readdir(list))) {
        char name[GOLDEN_PATH], full[2 * GOLDEN_PATH];
        struct stat st;
        if (d->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%.700s%s%.255s", dir, *dir ? "/" : "", d->d_name);
        snprintf(full, sizeof full, "%s/%s", g->root, name);
        if (stat(full, &st) == 0 && S_ISDIR(st.st_mode))
            walk(g, name);
        else
            check_file(g, name);
    }
    if (list)
        closedir(list);
}

// ---- main -------------------------------------------------------------------------------------

static int usage(void)
{
    fputs("usage: golden DIR [--dtype f32|f16] [--device NAME] [--quiet]\n", stderr);
    return 2;
}

int main(int argc, char **argv)
{
    struct golden g = {.dtype = DT_F32};
    struct ops_open_params open = {.dtype = "f32"};
    struct json_t *manifest = NULL;
    const struct json_t *fixture;
    const char *name, *only = getenv("TEST_ONLY");
    struct fault why = {0};
    char path[GOLDEN_PATH];
    void *at = NULL;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--quiet"))
            g.quiet = true;
        else if (!strcmp(argv[i], "--dtype") && i + 1 < argc)
            open.dtype = argv[++i];
        else if (!strcmp(argv[i], "--device") && i + 1 < argc)
            open.device = argv[++i];
        else if (argv[i][0] != '-' && !g.root)
            g.root = argv[i];
        else
            return usage();
    }
    if (!g.root)
        return usage();
    snprintf(path, sizeof path, "%s/manifest.json", g.root);
    if (json_parse_file(path, MANIFEST_BYTES, &manifest, &why) ||
        ops_device_open(&open, &g.dev, &why)) {
        fprintf(stderr, "golden: %s\n", why.msg);
        json_destroy(&manifest);
        return 2;
    }
    g.manifest = manifest;
    g.dtype = ops_device_info(g.dev)->dtype;
    printf("      error / tolerance on %s, %s\n", ops_device_info(g.dev)->name,
           g.dtype == DT_F16 ? "f16" : "f32");
    while (json_next(json_find(manifest, "fixtures"), &at, &name, &fixture))
        if (!only || strstr(name, only))
            check_fixture(&g, name, fixture);
    walk(&g, "");
    if (ops_device_validation_messages(g.dev))
        golden_fail(&g, "validation", "messages", "%u", ops_device_validation_messages(g.dev));
    ops_device_close(&g.dev);
    json_destroy(&manifest);
    printf("largest error %.3f of its tolerance\n%d passed, %d failed, %d skipped, %d part of "
           "another\n",
           g.worst, g.passed, g.failed, g.skipped, g.fused);
    return g.failed || !g.passed ? 1 : 0;
}
