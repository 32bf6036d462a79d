// The choice of a kernel: one function over the rows of the table. Called by the recorder for each
// call, and by weight.c, whose packing follows from the row. Knows what rows say of themselves, not
// what they compute. Thread: the engine's worker.
#include "ops_internal.h"
#include "tune.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

// Reading operands the other way than a kind of device likes: measured on lavapipe (22 of 36
// GFLOP/s), and buffers are what GPUs have caches for.
static const double cost_of_load[2][LOAD_COUNT] = {
    // GPU
    {[LOAD_BUFFER] = 1, [LOAD_TEXEL] = 1.5},
    // software
    {[LOAD_BUFFER] = 1.6, [LOAD_TEXEL] = 1},
};
static const char *const load_names[LOAD_COUNT] = {"buffer", "texel"};
static const double UNWISHED = 1e12; // a wished row wins at any cost
static const double TUNED = 1e-12;   // and so does one that was measured

bool kernel_reads_operand(char letter)
{
    return strchr("xms", letter) != NULL;
}

bool kernel_reads_texels(const struct kernel_build *b, char letter)
{
    return b->load == LOAD_TEXEL && kernel_reads_operand(letter) &&
           (letter != 'm' || (b->weight & STORED_TEXELS));
}

// ---- what a device lacks --------------------------------------------------------------------

// Why a call was refused: the first reason is kept.
struct refusal {
    const struct ops_device *dev;
    char *why; // KERNEL_WHY bytes
};

static bool lacks(const struct refusal *r, const struct kernel *k, const char *what)
{
    if (!r->why[0])
        snprintf(r->why, KERNEL_WHY, "%s needs %s (%.60s)", k->name, what, r->dev->caps->name);
    return true;
}

// Returns need > have.
static bool too_few(const struct refusal *r, const struct kernel *k, const char *what,
                    uint32_t need, uint32_t have)
{
    if (need > have && !r->why[0])
        snprintf(r->why, KERNEL_WHY, "%s needs %u %s, but the device allows only %u (%.60s)",
                 k->name, need, what, have, r->dev->caps->name);
    return need > have;
}

static bool lacks_lanes(const struct refusal *r, const struct kernel *k)
{
    const struct vk_caps *caps = r->dev->caps;
    if (k->shuffles && (!caps->subgroup_shuffle || r->dev->broken.shuffles))
        return lacks(r, k, "subgroup shuffles, which the device does not support");
    if (k->matrix && (!caps->matrix.m || r->dev->broken.matrix))
        return lacks(r, k, "matrix units (f16 x f16 -> f32), which the device does not have");
    if (k->subgroup.most &&
        (caps->subgroup_size < k->subgroup.least || caps->subgroup_size > k->subgroup.most)) {
        if (!r->why[0])
            snprintf(r->why, KERNEL_WHY,
                     "%s needs subgroups of %u to %u lanes, but those of %.60s have %u", k->name,
                     k->subgroup.least, k->subgroup.most, caps->name, caps->subgroup_size);
        return true;
    }
    return false;
}

// The device lacks what every call of this build needs.
static bool lacks_any(const struct refusal *r, const struct kernel *k, const struct kernel_build *b)
{
    const struct vk_caps *caps = r->dev->caps;
    uint32_t texel = 0, all = (uint32_t)strlen(k->bindings);
    for (uint32_t i = 0; i < all; i++)
        texel += kernel_reads_texels(b, k->bindings[i]);
    if (lacks_lanes(r, k))
        return true;
    if (texel && (!caps->texel_f32 || !caps->texel_f16 || r->dev->broken.texels))
        return lacks(r, k, "uniform texel buffers of RGBA32F and RGBA16F");
    return too_few(r, k, "bytes of push constants", k->push_bytes, caps->max_push_bytes) ||
           too_few(r, k, "storage buffers", all - texel, caps->max_storage_bindings) ||
           too_few(r, k, "texel buffers", texel, caps->max_texel_bindings) ||
           too_few(r, k, "buffers", all, caps->max_bindings);
}

// ---- what a call exceeds --------------------------------------------------------------------

void ops_shape_text(const struct tensor *t, char text[OPS_SHAPE_TEXT])
{
    static const char *const dtypes[] = {
        [DT_F32] = "f32",   [DT_F16] = "f16", [DT_U32] = "u32", [DT_U8] = "u8",
        [DT_BF16] = "bf16", [DT_Q8] = "q8",   [DT_Q4] = "q4"};
    if (t)
        snprintf(text, OPS_SHAPE_TEXT, "%s [%u, %u, %u, %u]", dtypes[t->dtype], t->n, t->h, t->w,
                 t->c);
    else
        snprintf(text, OPS_SHAPE_TEXT, "absent");
}

void ops_exceeds_text(const struct ops_device *dev, const char *op, const struct tensor *t,
                      const struct excess *x, char text[KERNEL_WHY])
{
    char shape[OPS_SHAPE_TEXT];
    ops_shape_text(t, shape);
    snprintf(text, KERNEL_WHY, "%s%s%s needs %zu %s, but %.60s allows only %zu", op,
             t ? " on " : "", t ? shape : "", x->need, x->what, dev->caps->name, x->most);
}

// The tensor that says best how large the call is: the result.
static const struct tensor *result_of(const struct ops_call *call, const struct kernel *k)
{
    const struct tensor *t = NULL;
    for (int i = 0; k->bindings[i]; i++)
        if (call->arg[i] && (!t || strchr("wu", k->bindings[i])))
            t = call->arg[i];
    return t;
}

static bool exceeds_limits(const struct refusal *r, const struct kernel *k,
                           const struct ops_call *call)
{
    const struct vk_caps *caps = r->dev->caps;
    const struct excess x[] = {
        {"invocations in a workgroup", call->spec[0], caps->max_workgroup_invocations},
        {"bytes of shared memory", call->shared_bytes, caps->max_shared_bytes},
        {"workgroups along one axis", call->groups[0], caps->max_groups[0]},
        {"workgroups along one axis", call->groups[1], caps->max_groups[1]},
        {"workgroups along one axis", call->groups[2], caps->max_groups[2]},
        {"loop trips in one invocation", call->trips, caps->cpu ? QUIRK_MAX_TRIPS : SIZE_MAX},
    };
    for (size_t i = 0; i < sizeof x / sizeof x[0]; i++)
        if (x[i].need > x[i].most) {
            if (!r->why[0])
                ops_exceeds_text(r->dev, k->name, result_of(call, k), &x[i], r->why);
            return true;
        }
    return false;
}

size_t ops_bound_bytes(const struct ops_device *dev, const struct tensor *t)
{
    const size_t element = tensor_dtype_bytes(t->dtype), align = dev->caps->offset_alignment;
    const size_t bytes = t->offset * element % (align ? align : 1) + tensor_span(t) * element;
    // Shaders see words; tensor_create leaves room for the last.
    return t->dtype == DT_U8 ? (bytes + 3) / 4 * 4 : bytes;
}

// Some operand has more texels than one view can: not worth a word, buffers take it.
static bool too_long_for_texels(const struct ops_device *dev, const struct kernel *k,
                                const struct kernel_build *b, const struct ops_call *call)
{
    for (int i = 0; k->bindings[i]; i++) {
        const struct tensor *t = call->arg[i];
        if (!t || !kernel_reads_texels(b, k->bindings[i]))
            continue;
        size_t texel = 4 * tensor_dtype_bytes(t->dtype);
        if ((ops_bound_bytes(dev, t) + QUIRK_TEXEL_STEP) / texel > dev->caps->max_texel_elements)
            return true;
    }
    return false;
}

// ---- the choice -----------------------------------------------------------------------------

static unsigned stored(enum dtype dtype)
{
    switch (dtype) {
    case DT_F16: return STORED_F16;
    case DT_BF16: return STORED_BF16;
    case DT_Q8: return STORED_Q8;
    case DT_Q4: return STORED_Q4;
    default: return STORED_F32;
    }
}

static double cost(const struct ops_device *dev, int row, const struct kernel_build *b,
                   const struct ops_call *call)
{
    const struct kernel *k = kernel_at(row);
    const struct kernel_wish *wish = &dev->wish;
    double rate = dev->caps->cpu ? k->rate.cpu : k->rate.gpu;
    double seconds = 1e-6 + (rate > 0 ? call->work / rate * 1e-9 : 0);
    seconds += dev->caps->cpu ? k->start * 1e-6 : 0;
    bool other_row = (wish->ops & 1u << call->op) && !(wish->rows >> row & 1);
    bool other_load = wish->loads && !(wish->loads & 1u << b->load);
    seconds *= cost_of_load[dev->caps->cpu][b->load];
    return seconds * (other_row ? UNWISHED * UNWISHED : 1) * (other_load ? UNWISHED : 1);
}

// The row computes the call, which it plans.
static bool plans(const struct ops_device *dev, const struct kernel *k, struct ops_call *call)
{
    const struct problem *p = call->problem;
    return (k->ops >> call->op & 1) && (!p || !p->layout || p->layout == k->layout) &&
           (!k->plan || k->plan(dev->caps, p, call));
}

static bool takes(const struct refusal *r, const struct kernel *k, const struct kernel_build *b,
                  const struct ops_call *planned)
{
    return (b->act & stored(planned->dtype)) && (b->weight & stored(planned->weight_dtype)) &&
           !too_long_for_texels(r->dev, k, b, planned) && !lacks_any(r, k, b) &&
           !exceeds_limits(r, k, planned);
}

int kernel_candidates(const struct ops_device *dev, const struct ops_call *call,
                      struct kernel_candidate out[KERNEL_CANDIDATES])
{
    char why[KERNEL_WHY] = "";
    const struct refusal r = {dev, why};
    int count = 0;
    for (int row = 0; row < kernel_count(); row++) {
        const struct kernel *k = kernel_at(row);
        struct ops_call planned = *call;
        if (!plans(dev, k, &planned))
            continue;
        for (int i = 0; i < k->builds && count < KERNEL_CANDIDATES; i++)
            if (takes(&r, k, &k->build[i], &planned))
                out[count++] =
                    (struct kernel_candidate){row, i, cost(dev, row, &k->build[i], &planned)};
    }
    return count;
}

// The tuner's row wins even where its build cannot take the call: rows differ in bits, builds do
// not.
static double tuned(const struct tune_choice *t, int row, const struct kernel_build *b)
{
    if (!t || t->row != row)
        return 1;
    return b == &kernel_at(row)->build[t->build] ? TUNED * TUNED : TUNED;
}

bool kernel_choose(const struct ops_device *dev, struct ops_call *call, struct kernel_choice *out,
                   char why[KERNEL_WHY])
{
    const struct refusal r = {dev, why};
    const struct tune_choice *t = tune_find(dev, call);
    struct ops_call best = *call;
    double least = 0;
    assert(call->op < OP_COUNT);
    out->kernel = NULL;
    why[0] = 0;
    for (int row = 0; row < kernel_count(); row++) {
        const struct kernel *k = kernel_at(row);
        struct ops_call planned = *call;
        if (!plans(dev, k, &planned))
            continue;
        for (const struct kernel_build *b = k->build; b < k->build + k->builds; b++) {
            if (!takes(&r, k, b, &planned))
                continue;
            double c = cost(dev, row, b, &planned) * tuned(t, row, b);
            if (out->kernel && c >= least)
                continue;
            least = c;
            best = planned;
            *out = (struct kernel_choice){k, b};
        }
    }
    if (!out->kernel && !why[0])
        snprintf(why, KERNEL_WHY, "no kernel computes operator %d with these operands", call->op);
    *call = best;
    return out->kernel != NULL;
}

// ---- wishes ---------------------------------------------------------------------------------

// word: all of name, or one of its words.
static bool is_word_of(const char *word, size_t n, const char *name)
{
    if (strlen(name) == n && !memcmp(name, word, n))
        return true;
    for (size_t len; *name; name += len + (name[len] == '_')) {
        len = strcspn(name, "_");
        if (len == n && !memcmp(name, word, n))
            return true;
    }
    return false;
}

// Adds what one name stands for. known: some row or load has it; the rest as kernel_wish.
static bool add_wish(const struct ops_device *dev, const char *name, size_t n,
                     struct kernel_wish *out, bool *known, char why[KERNEL_WHY])
{
    const struct refusal r = {dev, why};
    bool possible = false;
    for (int load = 0; load < LOAD_COUNT; load++)
        if (is_word_of(name, n, load_names[load]))
            out->loads |= 1u << load;
    for (int row = 0; row < kernel_count(); row++) {
        const struct kernel *k = kernel_at(row);
        bool named = is_word_of(name, n, k->name), can = false;
        for (const struct kernel_build *b = k->build; b < k->build + k->builds; b++) {
            bool meant = named || is_word_of(name, n, load_names[b->load]);
            *known = *known || meant;
            can = can || (meant && !lacks_any(&r, k, b));
        }
        possible = possible || can;
        if (named && can) {
            out->rows |= (uint64_t)1 << row;
            out->ops |= k->ops;
        }
    }
    return possible;
}

enum err kernel_wish(const struct ops_device *dev, const char *names, struct kernel_wish *out,
                     char why[KERNEL_WHY])
{
    struct kernel_wish wish = {0};
    for (size_t n; names && *names; names += n + (names[n] == ',')) {
        bool known = false;
        n = strcspn(names, ",");
        why[0] = 0;
        bool possible = add_wish(dev, names, n, &wish, &known, why);
        if (!known) {
            snprintf(why, KERNEL_WHY, "\"%.*s\" is not the name of a kernel",
                     (int)(n < 60 ? n : 60), names);
            return ERR_INVALID;
        }
        if (!possible)
            return ERR_UNSUPPORTED;
    }
    *out = wish;
    return ERR_OK;
}

bool kernels_suffice(const struct ops_device *dev, char why[KERNEL_WHY])
{
    const struct refusal r = {dev, why};
    for (int op = OP_PROBE + 1; op < OP_COUNT; op++) {
        bool possible = false;
        why[0] = 0;
        for (int row = 0; row < kernel_count(); row++) {
            const struct kernel *k = kernel_at(row);
            for (int i = 0; (k->ops >> op & 1) && i < k->builds; i++)
                possible = possible || !lacks_any(&r, k, &k->build[i]);
        }
        if (!possible)
            return false;
    }
    return true;
}
