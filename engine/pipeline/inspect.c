// `imagend inspect`: what is behind a model folder, from its configs and the headers of its weight
// files, without a device. Called by the command line.
#include "engine.h"

#include "buf.h"
#include "cascade.h"
#include "t5.h"
#include "unet.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

struct totals {
    uint64_t parameters, bytes;
    int incomplete;
};

static void add_weights(struct buf *b, struct weights *w, struct totals *sum)
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
    if (complaints) {
        buf_printf(b, "    problems     %s\n", complaints);
        sum->incomplete++;
    }
    sum->parameters += s.parameters;
    sum->bytes += bytes;
    free(complaints);
}

static void inspect_text(const struct cascade *c, const char *variant, struct buf *b,
                         struct totals *sum)
{
    const struct t5_config *t = &c->t5;
    struct weights *w = NULL;
    struct t5 *t5 = NULL;
    struct fault why = {0};

    buf_printf(b, "text encoder   %s\n", c->text_dir);
    buf_printf(b,
               "    T5           %d layers, width %d, %d heads of %d, feed-forward %d, %d tokens\n",
               t->num_layers, t->d_model, t->num_heads, t->d_kv, t->d_ff, t->vocab_size);
    if (weights_open(
            &(struct weights_params){
                .dir = c->text_dir, .base = "model", .variant = variant, .dry = true},
            &w, &why)) {
        buf_printf(b, "    problems     %s\n", why.msg);
        sum->incomplete++;
        return;
    }
    if (!t5_load(NULL, t, w, DT_F32, &t5, &why))
        t5_destroy(&t5);
    add_weights(b, w, sum);
    weights_close(&w);
}

static void add_settings(struct buf *b, const struct cascade *c, const struct cascade_settings *s)
{
    buf_printf(b, "%s, %d steps", cascade_sampler_name(c, s), s->steps);
    for (int i = 0; i < s->timestep_count; i++)
        buf_printf(b, "%s%d", i ? " " : " (", s->timesteps[i]);
    buf_printf(b, "%s, guidance %g", s->timestep_count ? ")" : "", (double)s->guidance_scale);
    if (s->guidance_scale != 1 && s->guidance_interval[1] != INT_MAX)
        buf_printf(b, " at timesteps %d to %d", s->guidance_interval[0], s->guidance_interval[1]);
    if (s->noise_level >= 0)
        buf_printf(b, ", noise level %d", s->noise_level);
    buf_puts(b, "\n");
}

static void inspect_network(const struct cascade *c, int index, const char *variant, struct buf *b,
                            struct totals *sum)
{
    const struct cascade_network *n = &c->network[index];
    const struct unet_config *u = &n->unet;
    struct weights *w = NULL;
    struct unet *unet = NULL;
    struct fault why = {0};
    char dir[CASCADE_PATH + 8];

    const int size = c->size[n->stage];
    if (index < c->stages)
        buf_printf(b, "stage %d        %s, %dx%d\n", n->stage + 1, n->dir, size, size);
    else
        buf_printf(b, "network        %s, for stage %d\n", n->dir, n->stage + 1);
    buf_printf(b, "    U-Net        channels");
    for (int i = 0; i < u->levels; i++)
        buf_printf(b, "%s%d", i ? "/" : " ", u->channels[i]);
    buf_printf(b, ", %d in, %d out, patch %d, text %d -> %d\n", u->in_channels, u->out_channels,
               u->patch_size, u->text_dim, u->cross_dim);
    if (index < c->stages) {
        buf_puts(b, "    recommended  ");
        add_settings(b, c, &c->preset[0].stage[index]);
    }
    snprintf(dir, sizeof dir, "%s/unet", n->dir);
    if (weights_open(
            &(struct weights_params){
                .dir = dir, .base = "diffusion_pytorch_model", .variant = variant, .dry = true},
            &w, &why)) {
        buf_printf(b, "    problems     %s\n", why.msg);
        sum->incomplete++;
        return;
    }
    if (!unet_load(NULL, u, w, DT_F32, &unet, &why))
        unet_destroy(&unet);
    add_weights(b, w, sum);
    weights_close(&w);
}

static void inspect_preset(const struct cascade *c, const struct cascade_preset *p, struct buf *b)
{
    buf_printf(b, "preset         %s\n", p->name);
    for (int i = 0; i < c->stages; i++) {
        buf_printf(b, "    stage %d      %s, ", i + 1, c->network[p->stage[i].network].name);
        add_settings(b, c, &p->stage[i]);
    }
}

enum err engine_inspect(const char *model, const char *variant, char **text, struct fault *why)
{
    struct cascade *c = malloc(sizeof *c);
    struct totals sum = {0};
    struct buf b = {0};
    enum err e = c ? cascade_read(model, c, why) : fault_set(why, ERR_NO_MEMORY, NULL, "no memory");

    if (e)
        goto done;
    buf_printf(&b, "model          %s, %d stages\n", c->name, c->stages);
    inspect_text(c, variant, &b, &sum);
    for (int i = 0; i < c->networks; i++)
        inspect_network(c, i, variant, &b, &sum);
    for (int i = 1; i < c->presets; i++)
        inspect_preset(c, &c->preset[i], &b);
    buf_printf(&b, "total          %.2f M parameters, %.1f MB on disk, %s\n",
               (double)sum.parameters / 1e6, (double)sum.bytes / 1e6,
               sum.incomplete ? "INCOMPLETE" : "complete");
    *text = buf_take(&b);
    if (!*text)
        e = fault_set(why, ERR_NO_MEMORY, NULL, "no memory");
    else if (sum.incomplete)
        e = fault_set(why, ERR_FORMAT, "model", "%d part%s of %.200s cannot be loaded",
                      sum.incomplete, sum.incomplete > 1 ? "s" : "", model);
done:
    buf_deinit(&b);
    free(c);
    return e;
}
