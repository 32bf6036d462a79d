// `imagend inspect`: describes a model folder from its configs and the headers of its weight files,
// without a device. Called by the command line.
#include "engine.h"

#include "buf.h"
#include "cascade.h"
#include "loras.h"
#include "measure.h"
#include "network.h"
#include "request.h"
#include "text.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

struct totals {
    uint64_t parameters, bytes;
    int incomplete;
};

// fault: of loading the weights; code 0 if they are fine.
static void add_weights(struct buf *b, const struct weights *w, const struct fault *fault,
                        struct totals *sum)
{
    struct weights_stats s;
    char *complaints = weights_complaints(w);
    uint64_t bytes = 0;

    weights_stats(w, &s);
    buf_printf(b, "    weights      %llu tensors, %.2f M parameters,",
               (unsigned long long)s.tensors, (double)s.parameters / 1e6);
    for (int i = 0; i < ST_DTYPES; i++) {
        bytes += s.bytes[i];
        if (s.bytes[i])
            buf_printf(b, " %.1f MB %s", (double)s.bytes[i] / 1e6, safetensors_dtype_name(i));
    }
    buf_printf(b, "\n    in memory    %.1f MB as f16, %.1f MB as f32\n",
               (double)s.parameters * 2 / 1e6, (double)s.parameters * 4 / 1e6);
    if (complaints || fault->code) {
        buf_printf(b, "    problems     %s\n", complaints ? complaints : fault->msg);
        sum->incomplete++;
    }
    sum->parameters += s.parameters;
    sum->bytes += bytes;
    free(complaints);
}

static void add_problem(struct buf *b, const char *problem, struct totals *sum)
{
    buf_printf(b, "    problems     %s\n", problem);
    sum->incomplete++;
}

static void inspect_text(const struct cascade *c, int index, struct buf *b, struct totals *sum)
{
    const struct cascade_text *t = &c->text[index];
    char dir[CASCADE_PATH + 8];
    const struct weights_params w = cascade_weights(c, CASCADE_TEXT, index, dir);
    struct text_parts parts;
    char dimensions[160];

    text_parts_open(
        &(struct text_params){
            .tokenizer_dir = t->tokenizer_dir,
            .weights = &w,
            .config = &t->config,
        },
        &parts, NULL);
    buf_printf(b, "tokenizer      %s\n", t->tokenizer_dir);
    if (parts.tokenizer)
        buf_printf(b, "    vocabulary   %d tokens, at most %d in a prompt\n",
                   tokenizer_vocab(parts.tokenizer), tokenizer_max_length(parts.tokenizer));
    if (parts.tokenizer_fault.code)
        add_problem(b, parts.tokenizer_fault.msg, sum);
    buf_printf(b, "text encoder   %s\n", t->dir);
    text_encoder_describe(&t->config, dimensions, sizeof dimensions);
    buf_printf(b, "    %s\n", dimensions);
    if (parts.weights)
        add_weights(b, parts.weights, &parts.weights_fault, sum);
    else
        add_problem(b, parts.weights_fault.msg, sum);
    text_parts_deinit(&parts);
}

static void add_settings(struct buf *b, const struct cascade *c, const struct cascade_settings *s)
{
    buf_printf(b, "%s, %d step%s", cascade_sampler_name(c, s), s->steps, s->steps == 1 ? "" : "s");
    for (int i = 0; i < s->timestep_count; i++)
        buf_printf(b, "%s%d", i ? " " : " (", s->timesteps[i]);
    buf_printf(b, "%s, guidance %g", s->timestep_count ? ")" : "", (double)s->guidance_scale);
    if (s->guidance_scale != 1 && s->guidance_interval[1] != INT_MAX)
        buf_printf(b, " at timesteps %d to %d", s->guidance_interval[0], s->guidance_interval[1]);
    if (s->noise_level >= 0)
        buf_printf(b, ", noise level %d", s->noise_level);
    buf_puts(b, "\n");
}

// Prints the weights or the error of a check. Owner: takes w, NULL on error.
static void add_checked(struct buf *b, enum err e, struct weights *w, struct fault *why,
                        struct totals *sum)
{
    if (e && !why->code)
        fault_set(why, e, NULL, "%s", err_text(e));
    if (w)
        add_weights(b, w, why, sum);
    else
        add_problem(b, why->msg, sum);
    weights_close(&w);
}

static void inspect_decoder(const struct cascade *c, int index, struct buf *b, struct totals *sum)
{
    struct weights *w = NULL;
    struct fault why = {0};
    char dimensions[160];
    const enum err e = network_check_decoder(c, index, &w, &why);

    decoder_describe(&c->network[index].decoder, dimensions, sizeof dimensions);
    buf_printf(b, "    %s\n", dimensions);
    add_checked(b, e, w, &why, sum);
}

// Parts that the folder lists and imagend does not run.
static void inspect_modules(const struct cascade_network *n, struct buf *b)
{
    if (n->safety_checker || n->watermarker)
        buf_printf(b, "    not applied  %s%s%s\n", n->safety_checker ? "safety checker" : "",
                   n->safety_checker && n->watermarker ? ", " : "",
                   n->watermarker ? "watermarker" : "");
}

// The sizes of a stage's images, in lines.
static void inspect_sizes(const struct cascade *c, int stage, struct buf *b)
{
    const struct picture_sizes all = request_sizes(c);
    struct check_size size;
    int count = 0, first, at = 0;

    while (picture_native(&all, count, &size))
        count++;
    count /= c->stages;
    first = stage * count;
    for (int i = 0; count > 1 && i < count; i++) {
        picture_native(&all, first + i, &size);
        const size_t line = b->len;
        buf_printf(b, "%s%dx%d",
                   at  ? ", "
                   : i ? ",\n                 "
                       : "    sizes        ",
                   size.width, size.height);
        at = at + (int)(b->len - line) > 84 ? 0 : at + (int)(b->len - line);
    }
    if (count > 1)
        buf_puts(b, "\n");
}

static void inspect_network(const struct cascade *c, int index, struct buf *b, struct totals *sum)
{
    const struct cascade_network *n = &c->network[index];
    struct weights *w = NULL;
    struct fault why = {0};
    char dimensions[160];
    const int size = c->size[n->stage];
    if (index < c->stages)
        buf_printf(b, "stage %d        %s, %dx%d\n", n->stage + 1, n->dir, size, size);
    else
        buf_printf(b, "network        %s, for stage %d\n", n->dir, n->stage + 1);
    denoiser_describe(&n->denoiser, dimensions, sizeof dimensions);
    buf_printf(b, "    %s\n", dimensions);
    if (index < c->stages) {
        buf_puts(b, "    recommended  ");
        add_settings(b, c, &c->preset[0].stage[index]);
        inspect_sizes(c, index, b);
    }
    const enum err e = network_check(c, index, &w, &why);
    add_checked(b, e, w, &why, sum);
    if (n->decoder.cls)
        inspect_decoder(c, index, b, sum);
    inspect_modules(n, b);
    if (n->text)
        inspect_text(c, n->text, b, sum);
}

static void inspect_loras(const struct cascade *c, struct buf *b)
{
    for (int i = 0; i < c->loras; i++) {
        const struct model_lora *l = &c->lora[i];
        const struct cascade_loras one = {.count = 1};
        const struct scheduler_config s = loras_scheduler(&c->network[l->stage], &one);
        const bool fixed =
            SCHEDULER_CONFIG_HAS(&s, variance_type) && s.variance_type == VARIANCE_FIXED_SMALL;
        buf_printf(b, "LoRA           %s, scale %g, stage %d%s", c->lora_path[i], l->scale,
                   l->stage + 1, fixed ? ", variance fixed_small" : "");
        if (!l->applied)
            buf_printf(b, ", for requests that name %s", l->name);
        buf_puts(b, "\n");
    }
}

static void inspect_preset(const struct cascade *c, const struct cascade_preset *p, struct buf *b)
{
    buf_printf(b, "preset         %s\n", p->name);
    for (int i = 0; i < c->stages; i++) {
        buf_printf(b, "    stage %d      %s, ", i + 1, c->network[p->stage[i].network].name);
        add_settings(b, c, &p->stage[i]);
    }
}

// Lists what the model can do with input images.
static void inspect_abilities(const struct cascade *c, struct buf *b)
{
    int scale[2];

    request_scales(c, scale);
    buf_puts(b, "input images   edit, inpaint");
    for (int i = 0; i < 2 && scale[i]; i++)
        buf_printf(b, "%s%d", i ? " and " : ", upscale by ", scale[i]);
    buf_puts(b, "\n");
}

static void inspect_unit(const char *name, const struct residency *need,
                         const struct residency_plan *plan, int i, struct buf *b)
{
    const struct residency_unit *u = &need->unit[i];

    buf_printf(b, "    %-13s%s %.1f MB of weights", name,
               plan->room[i]   ? "is streamed,"
               : plan->keep[i] ? "is kept,"
                               : "is loaded for use and released,",
               (double)u->weights / 1e6);
    if (plan->room[i])
        buf_printf(b, " in %.1f MB", (double)(u->weights - u->products + plan->room[i]) / 1e6);
    buf_printf(b, ", peak %.1f MB\n", (double)plan->peak[i] / 1e6);
}

// How the memory of a device would be used within a limit, without loading anything.
static enum err inspect_memory(const struct engine_params *p, const struct cascade *c,
                               struct buf *b, struct fault *why)
{
    struct ops_device *dev = NULL;
    struct residency need = {0};
    struct residency_plan plan = {0};
    const int slots = p->slots ? p->slots : 1;
    const struct picture_sizes sizes = request_sizes(c);
    struct measure_params measure = {.cascade = c, .slots = slots, .stored = !p->weights};
    struct picture_used used;
    enum err e = picture_choose(&sizes, &p->size, &used, why);
    if (e)
        return e;
    const int square = c->size[used.stages - 1];
    const bool other = used.drawn.width != square || used.drawn.height != square;
    for (int i = 0; other && i < used.stages; i++)
        measure.shape[i] = picture_stage_size(&sizes, &used, i);
    e = ops_device_open(
        &(struct ops_open_params){.device = p->device, .dtype = p->dtype, .weights = p->weights},
        &dev, why);

    measure.dev = dev;
    if (!e)
        e = measure_units(&measure, &need, why);
    if (!e) {
        const bool fits = residency_plan(&need, residency_usable(p->memory_limit), &plan);
        if (fits)
            e = measure_streams(&measure, &need, &plan, why);
        buf_printf(b, "memory         limit %.1f MB, %s, %d image%s at once%s\n",
                   (double)p->memory_limit / 1e6, ops_device_info(dev)->name, slots,
                   slots > 1 ? "s" : "", p->slots ? "" : " (a service has more slots: --slots)");
        for (int i = 0; i < need.units; i++) {
            const int network = i - need.texts;
            char name[24] = "text encoder";
            if (network >= c->stages)
                snprintf(name, sizeof name, "%.23s", c->network[network].name);
            else if (network >= 0)
                snprintf(name, sizeof name, "stage %d", network + 1);
            inspect_unit(name, &need, &plan, i, b);
        }
        const size_t least = residency_least(&need);
        buf_printf(b, "    %-13s%.1f MB, at least %.1f MB; the least limit is %zu MB\n", "peak",
                   (double)plan.most / 1e6, (double)least / 1e6,
                   residency_limit(least) / 1000000 + 1);
        if (!fits)
            e = fault_set(why, ERR_NO_DEVICE_MEMORY, "memory-limit",
                          "the memory limit of %zu MB is too small: this model needs at least %zu "
                          "MB",
                          p->memory_limit / 1000000, residency_limit(plan.most) / 1000000 + 1);
    }
    ops_device_close(&dev);
    return e;
}

enum err engine_inspect(const struct engine_params *p, char **text, struct fault *why)
{
    struct cascade *c = malloc(sizeof *c);
    struct totals sum = {0};
    struct buf b = {0};
    const struct cascade_files files = cascade_files_of(p);
    enum err e =
        c ? cascade_read(&files, c, why) : fault_set(why, ERR_NO_MEMORY, NULL, "no memory");

    if (e)
        goto done;
    buf_printf(&b, "model          %s, %d stage%s\n", c->name, c->stages,
               c->stages == 1 ? "" : "s");
    if (*c->notice)
        buf_printf(&b, "notice         %s\n", c->notice);
    inspect_text(c, 0, &b, &sum);
    for (int i = 0; i < c->networks; i++)
        inspect_network(c, i, &b, &sum);
    inspect_loras(c, &b);
    inspect_abilities(c, &b);
    if (c->vocabulary)
        buf_printf(&b, "vocabulary     %d nouns and shapes\n", vocabulary_things(c->vocabulary));
    for (int i = 1; i < c->presets; i++)
        inspect_preset(c, &c->preset[i], &b);
    buf_printf(&b, "total          %.2f M parameters, %.1f MB on disk, %s\n",
               (double)sum.parameters / 1e6, (double)sum.bytes / 1e6,
               sum.incomplete ? "INCOMPLETE" : "complete");
    if (!sum.incomplete && p->memory_limit)
        e = inspect_memory(p, c, &b, why);
    *text = buf_take(&b);
    if (!*text)
        e = fault_set(why, ERR_NO_MEMORY, NULL, "no memory");
    else if (sum.incomplete)
        e = fault_set(why, ERR_FORMAT, "model", "%d part%s of %.200s cannot be loaded",
                      sum.incomplete, sum.incomplete > 1 ? "s" : "", p->model);
done:
    buf_deinit(&b);
    if (c)
        cascade_deinit(c);
    free(c);
    return e;
}

enum err engine_devices(char **text, struct fault *why)
{
    return ops_device_list(text, why);
}
