// Reads fixture tensors and compares with them. Called by the checks.
#include "golden.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void golden_pass(struct golden *g, const char *fixture, const char *what, double ratio)
{
    g->passed++;
    if (ratio > g->worst)
        g->worst = ratio;
    if (!g->quiet)
        printf("pass  %8.4f  %s  %s\n", ratio, fixture, what);
}

void golden_fail(struct golden *g, const char *fixture, const char *what, const char *fmt, ...)
{
    va_list ap;

    g->failed++;
    printf("FAIL            %s  %s  ", fixture, what);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    if (getenv("TEST_STOPS_AT_FAILURE"))
        exit(1);
}

void golden_skip(struct golden *g, const char *fixture, const char *why)
{
    g->skipped++;
    printf("skip            %s  %s\n", fixture, why);
}

void golden_fused(struct golden *g, const char *fixture, const char *what)
{
    g->fused++;
    if (!g->quiet)
        printf("fused           %s  %s\n", fixture, what);
}

void golden_path(const struct golden *g, const char *name, const char *file, char *out)
{
    const char *slash = strrchr(name, '/');
    const int dir = slash ? (int)(slash - name) : 0;

    snprintf(out, GOLDEN_PATH, "%s/%.*s/%s", g->root, dir, name, file);
}

char *golden_hex(const char *hex, size_t *len)
{
    const size_t n = strlen(hex) / 2;
    char *out = malloc(n + 1);

    for (size_t i = 0; out && i < n; i++) {
        unsigned byte = 0;
        sscanf(hex + 2 * i, "%2x", &byte);
        out[i] = (char)byte;
    }
    if (out)
        out[n] = 0;
    *len = n;
    return out;
}

bool bundle_open(struct golden *g, const char *name, const struct json_t *fixture, struct bundle *b)
{
    char path[GOLDEN_PATH];
    struct fault why = {0};

    memset(b, 0, sizeof *b);
    b->g = g;
    snprintf(b->name, sizeof b->name, "%s", name);
    golden_path(g, name, "", b->dir);
    b->meta = json_find(fixture, "tensors");
    snprintf(path, sizeof path, "%s/%s", g->root, name);
    if (safetensors_open_file(path, &b->file, &why)) {
        golden_fail(g, name, "open", "%s", why.msg);
        return false;
    }
    b->seen = calloc(safetensors_count(b->file) + 1, sizeof *b->seen);
    return b->seen != NULL;
}

void bundle_close(struct bundle *b)
{
    for (size_t i = 0; b->seen && i < safetensors_count(b->file); i++) {
        if (!b->seen[i])
            golden_fail(b->g, b->name, safetensors_at(b->file, i)->name, "nothing checks it");
    }
    free(b->seen);
    safetensors_close(&b->file);
}

static const struct safetensor *find(struct bundle *b, const char *name)
{
    for (size_t i = 0; i < safetensors_count(b->file); i++) {
        if (!strcmp(safetensors_at(b->file, i)->name, name)) {
            b->seen[i] = true;
            return safetensors_at(b->file, i);
        }
    }
    return NULL;
}

const struct safetensor *bundle_find(struct bundle *b, const char *fmt, ...)
{
    char name[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return find(b, name);
}

float *bundle_floats(struct bundle *b, const char *fmt, ...)
{
    const struct safetensor *t;
    char name[256];
    float *out;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    t = find(b, name);
    if (!t || !safetensors_is_float(t->dtype))
        return NULL;
    out = malloc((t->elements + 1) * sizeof *out);
    if (out)
        safetensors_f32(t, 0, t->elements, out);
    return out;
}

int64_t *bundle_ints(struct bundle *b, const char *fmt, ...)
{
    const struct safetensor *t;
    char name[256];
    int64_t *out;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    t = find(b, name);
    if (!t || t->dtype != ST_I64)
        return NULL;
    out = malloc((t->elements + 1) * sizeof *out);
    if (out)
        memcpy(out, t->data, t->bytes);
    return out;
}

// Where no half run was made, the manifest suggests about 2e-2 of the largest value.
// Ill-conditioned points need more, and how ill-conditioned they are was measured: noise_floor is
// how far float32 rounding took the reference itself, and a half rounds 2^-11 / 2^-24 times as
// coarsely. Where the fixtures hold both, that product is 0.9 to 1.4 times atol_half.
static const double half_guess = 2e-2, half_roundoff = 8192;

double bundle_tolerance(struct bundle *b, const char *name, double absmax)
{
    const struct json_t *meta = json_find(b->meta, name);
    const struct json_t *atol = json_find(meta, "atol"), *half = json_find(meta, "atol_half");

    if (!b->meta)
        return b->g->relative * absmax;
    if (json_kind(atol) == JSON_ABSENT || json_kind(atol) == JSON_NONE)
        return -1;
    if (b->g->dtype != DT_F16)
        return json_number(atol);
    if (json_kind(half) != JSON_ABSENT && json_kind(half) != JSON_NONE)
        return json_number(half);
    return fmax(half_guess * absmax, half_roundoff * json_number(json_find(meta, "noise_floor")));
}

static void verdict(struct bundle *b, const char *name, double error, double tolerance)
{
    // An error that is not a number must fail.
    if (error <= tolerance)
        golden_pass(b->g, b->name, name, tolerance > 0 ? error / tolerance : 0);
    else
        golden_fail(b->g, b->name, name, "max error %.3g, tolerance %.3g (%.2f x)", error,
                    tolerance, error / tolerance);
}

static void compare(struct bundle *b, const char *name, const float *got, const float *want,
                    size_t n)
{
    double error = 0, absmax = 0;

    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= error))
            error = d;
        if (fabs((double)want[i]) > absmax)
            absmax = fabs((double)want[i]);
    }
    const double tolerance = bundle_tolerance(b, name, absmax);
    verdict(b, name, error, tolerance < 0 ? 0 : tolerance);
}

void bundle_compare(struct bundle *b, const char *name, const float *got)
{
    const struct safetensor *t = find(b, name);
    float *want = t ? bundle_floats(b, "%s", name) : NULL;

    if (!want)
        golden_fail(b->g, b->name, name, "no such float tensor");
    else
        compare(b, name, got, want, t->elements);
    free(want);
}

// Rows and columns that the fixture holds: every k-th one, k = full size / stored size.
void bundle_compare_images(struct bundle *b, const char *name, const float *got, struct shape4 s)
{
    const struct safetensor *t = find(b, name);
    float *want = t ? bundle_floats(b, "%s", name) : NULL, *part = NULL;

    if (!want || t->dims < 4) {
        golden_fail(b->g, b->name, name, "no such image tensor");
        goto done;
    }
    const uint64_t *d = t->shape + t->dims - 4; // trajectories have steps in front
    size_t n = (size_t)d[0];
    for (int i = 0; i < t->dims - 4; i++)
        n *= (size_t)t->shape[i];
    const size_t c = (size_t)d[1], h = (size_t)d[2], w = (size_t)d[3];
    if (n > s.n || c != s.c || !h || !w || s.h % h || s.w % w || s.h / h != s.w / w) {
        golden_fail(b->g, b->name, name, "shape [%zu, %zu, %zu, %zu] is not [%zu, %zu, %zu, %zu]",
                    n, c, h, w, s.n, s.c, s.h, s.w);
        goto done;
    }
    const size_t k = s.h / h;
    part = malloc(n * c * h * w * sizeof *part);
    for (size_t i = 0; part && i < n * c; i++)
        for (size_t y = 0; y < h; y++)
            for (size_t x = 0; x < w; x++)
                part[(i * h + y) * w + x] = got[(i * s.h + y * k) * s.w + x * k];
    if (part)
        compare(b, name, part, want, n * c * h * w);
done:
    free(part);
    free(want);
}
