// See model_folder.h. Knows the layout of tests/golden.
#include "model_folder.h"

#include "buf.h"

#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILE = 1 << 24 };

static char folder[64], source[512];

static void fail(const char *what)
{
    fprintf(stderr, "model_folder: %s\n", what);
    abort();
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static void remove_folder(void)
{
    nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void path_of(const char *name, char *out, size_t n)
{
    snprintf(out, n, "%s/%s", folder, name);
    for (char *at = strchr(out + strlen(folder) + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = 0;
        mkdir(out, 0700);
        *at = '/';
    }
}

void model_folder_write(const char *name, const void *data, size_t size)
{
    char path[512];
    FILE *f;

    path_of(name, path, sizeof path);
    unlink(path);
    f = fopen(path, "wb");
    if (!f || (size && fwrite(data, size, 1, f) != 1) || fclose(f))
        fail(path);
}

void model_folder_edit(const char *name, const char *golden_name, const char *from, const char *to)
{
    char path[600];
    struct buf b = {0};
    struct buf out = {0};
    struct fault why;

    snprintf(path, sizeof path, "%s/%s", source, golden_name);
    if (buf_read_file(&b, path, MAX_FILE, &why))
        fail(path);
    buf_putc(&b, 0);
    const char *at = strstr(b.data, from);
    if (!at)
        fail(from);
    buf_add(&out, b.data, (size_t)(at - b.data));
    buf_printf(&out, "%s%s", to, at + strlen(from));
    model_folder_write(name, out.data, out.len);
    buf_deinit(&b);
    buf_deinit(&out);
}

static void link_golden(const char *name, const char *golden_name)
{
    char path[512], target[600];

    path_of(name, path, sizeof path);
    snprintf(target, sizeof target, "%s/%s", source, golden_name);
    if (symlink(target, path))
        fail(path);
}

const char *model_folder(const char *golden)
{
    static const char index[] =
        "{\"_class_name\":\"IFPipeline\",\"scheduler\":[\"diffusers\",\"DDIMScheduler\"],"
        "\"text_encoder\":[null,null],\"tokenizer\":[null,null],"
        "\"unet\":[\"diffusers\",\"UNet2DConditionModel\"]}";

    if (folder[0])
        return folder;
    if (!realpath(golden, source))
        fail(golden);
    strcpy(folder, "/tmp/imagend-model-XXXXXX");
    if (!mkdtemp(folder))
        fail(folder);
    atexit(remove_folder);
    link_golden("base", "if-tiny-I");
    link_golden("sr", "if-tiny-II");
    link_golden("sr-large", "if-tiny-II-256");
    link_golden("base-fast/unet", "if-tiny-I/unet");
    model_folder_write("base-fast/model_index.json", index, sizeof index - 1);
    model_folder_edit("base-fast/scheduler/scheduler_config.json",
                      "if-tiny-I/scheduler/scheduler_config.json", "DDPMScheduler",
                      "DDIMScheduler");
    return folder;
}

static void add_weights(const char *name, bool halved)
{
    char path[600];
    struct buf b = {0};
    struct fault why;
    uint64_t header = 0;

    snprintf(path, sizeof path, "%s/if-tiny-I/unet/diffusion_pytorch_model.safetensors", source);
    if (buf_read_file(&b, path, MAX_FILE, &why))
        fail(path);
    memcpy(&header, b.data, sizeof header);
    for (size_t i = sizeof header + header; halved && i + 2 <= b.len; i += 2) {
        uint16_t f16;
        memcpy(&f16, b.data + i, sizeof f16);
        f16 = f16 & 0x7c00 ? (uint16_t)(f16 - 0x0400) : f16; // the exponent, where there is one
        memcpy(b.data + i, &f16, sizeof f16);
    }
    model_folder_write(name, b.data, b.len);
    buf_deinit(&b);
}

void model_folder_network(const char *name, bool halved)
{
    static const char *const files[][2] = {{"model_index.json", "DDPMScheduler"},
                                           {"scheduler/scheduler_config.json", "DDPMScheduler"},
                                           {"unet/config.json", ""}};
    char path[128], from[128];

    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", name, files[i][0]);
        snprintf(from, sizeof from, "if-tiny-I/%s", files[i][0]);
        model_folder_edit(path, from, files[i][1], *files[i][1] ? "DDIMScheduler" : "");
    }
    snprintf(path, sizeof path, "%s/unet/diffusion_pytorch_model.safetensors", name);
    add_weights(path, halved);
}

void model_folder_break(const char *name)
{
    static const uint16_t nan = 0x7e00;
    char path[512];

    path_of(name, path, sizeof path);
    FILE *f = fopen(path, "r+b");
    if (!f || fseek(f, -(long)sizeof nan, SEEK_END) || fwrite(&nan, sizeof nan, 1, f) != 1 ||
        fclose(f))
        fail(path);
}
