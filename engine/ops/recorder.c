// The recorder: operators append dispatches to a list while it hands out activation memory;
// ops_end creates and warms the pipelines that the list needs and turns it into one command that
// is run again and again. Called by the operators (ops_dispatch) and by engine/model and
// engine/pipeline. Thread: the engine's worker.
#include "ops_internal.h"
#include "tune.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PUSH = 128, MAX_TIMINGS = 64 };
// A command that takes longer than this, and than a slow processor takes, counts as lost.
static const double run_seconds = 600, slowest_flops = 1e9;

struct record {
    int pipeline;
    struct vk_dispatch dispatch; // without pipe and push, which are filled in at the end
    uint8_t push[MAX_PUSH];
};

struct ops {
    struct ops_device *dev;
    enum dtype dtype;
    enum err error;
    bool open; // between begin and end
    struct record *records;
    int count, room;
    struct vk_cmd *cmd;
    struct stream_parts *parts;           // instead of cmd, if there are streamed products
    double flops, row_flops[KERNEL_ROWS]; // of all calls, and of each row's
};

enum err ops_begin(struct ops_device *dev, enum dtype dtype, struct ops **out)
{
    *out = NULL;
    struct ops *o = calloc(1, sizeof *o);
    if (!o)
        return ERR_NO_MEMORY;
    o->dev = dev;
    o->dtype = dtype;
    // A recording may use all the memory that finished ones use, since they do not run meanwhile.
    if (!dev->recording++)
        activations_reset(dev->activations);
    o->open = true;
    *out = o;
    return ERR_OK;
}

static void close_recording(struct ops *o)
{
    if (o->open)
        o->dev->recording--;
    o->open = false;
}

void ops_destroy(struct ops **op)
{
    struct ops *o = *op;
    if (!o)
        return;
    close_recording(o);
    vk_cmd_destroy(&o->cmd);
    stream_parts_destroy(&o->parts);
    free(o->records);
    free(o);
    *op = NULL;
}

enum err ops_error(const struct ops *o)
{
    return o->error;
}

void ops_fail(struct ops *o, enum err e)
{
    if (!o->error)
        o->error = e;
}

void ops_exceeds(struct ops *o, const char *op, const struct tensor *t, const char *what,
                 size_t need, size_t most)
{
    char text[KERNEL_WHY];
    ops_exceeds_text(o->dev, op, t, &(struct excess){what, need, most}, text);
    if (!o->error)
        o->error = vk_fail(o->dev->vk, ERR_UNSUPPORTED, "%s", text);
}

void ops_require_trips(struct ops *o, const char *op, const struct tensor *t, size_t trips)
{
    if (trips > QUIRK_MAX_TRIPS)
        ops_exceeds(o, op, t, "loop trips in one invocation", trips, QUIRK_MAX_TRIPS);
}

bool ops_require_at(struct ops *o, bool ok, const char *function, const struct tensor *const t[],
                    size_t count)
{
    char list[KERNEL_WHY] = "", shape[OPS_SHAPE_TEXT];
    for (size_t i = 0, n = 0; !ok && i < count && n < sizeof list; i++) {
        ops_shape_text(t[i], shape);
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", shape);
    }
    if (!ok && !o->error)
        o->error =
            vk_fail(o->dev->vk, ERR_INVALID, "%s: the operands do not match: %s", function, list);
    return !o->error;
}

double ops_flops(const struct ops *o)
{
    return o->flops;
}
unsigned ops_dispatches(const struct ops *o)
{
    return (unsigned)o->count;
}
struct ops_device *ops_recorder_device(const struct ops *o)
{
    return o->dev;
}

struct tensor ops_temp_dtype(struct ops *o, enum dtype dtype, uint32_t n, uint32_t h, uint32_t w,
                             uint32_t c)
{
    struct tensor t = {.dtype = dtype, .n = n, .h = h, .w = w, .c = c};
    t.cs = tensor_stride(dtype, c);
    if (!o->error)
        ops_fail(o, activations_take(o->dev->activations, &t));
    return t;
}

struct tensor ops_temp(struct ops *o, uint32_t n, uint32_t h, uint32_t w, uint32_t c)
{
    return ops_temp_dtype(o, o->dtype, n, h, w, c);
}

void ops_release(struct ops *o, const struct tensor *t)
{
    if (!o->error)
        activations_release(o->dev->activations, t);
}

// ---- dispatches ---------------------------------------------------------------------------------

// Bindings start at a multiple of the device's alignment; the rest goes into the view's base.
static size_t aligned_offset(const struct ops *o, const struct tensor *t)
{
    size_t align = o->dev->caps->offset_alignment, bytes = t->offset * tensor_dtype_bytes(t->dtype);
    return align ? bytes / align * align : bytes;
}

struct view ops_view(const struct ops *o, const struct tensor *t)
{
    if (!t)
        return (struct view){0};
    size_t bytes = tensor_dtype_bytes(t->dtype);
    size_t rest = t->offset - aligned_offset(o, t) / bytes;
    return (struct view){.base = (uint32_t)(rest / 4), .cs = t->cs / 4};
}

void ops_groups(const struct vk_caps *caps, size_t count, uint32_t local, uint32_t groups[3])
{
    size_t all = (count + local - 1) / local, most = caps->max_groups[0];
    size_t rows = (all + most - 1) / most;
    groups[0] = (uint32_t)(rows > 1 ? (all + rows - 1) / rows : all);
    groups[1] = (uint32_t)rows;
    groups[2] = 1;
}

static enum err bind(struct ops *o, const struct ops_call *call, int i,
                     const struct kernel_choice *c, struct vk_binding *b)
{
    const struct kernel *k = c->kernel;
    const char letter = k->bindings[i];
    const struct tensor *t = call->arg[i];
    bool operand = kernel_reads_operand(letter);
    enum dtype want = letter == 'm' ? call->weight_dtype : letter == 's' ? DT_F32 : call->dtype;
    if (!t) {
        *b = (struct vk_binding){.buf = o->dev->absent, .access = VK_READ};
        b->bytes = vk_buffer_bytes(o->dev->absent);
        return letter == 'w' || letter == 'u' ? ERR_INVALID : ERR_OK;
    }
    if (!t->buf)
        return ERR_INVALID;
    if (operand && (t->dtype == DT_F16) != (want == DT_F16))
        return ERR_INVALID; // the variant would read the wrong storage
    size_t offset = aligned_offset(o, t), bytes = ops_bound_bytes(o->dev, t);
    *b = (struct vk_binding){.buf = t->buf, .offset = offset, .bytes = bytes};
    b->access = letter == 'w' ? VK_WRITE : letter == 'u' ? VK_READ_WRITE : VK_READ;
    if (kernel_reads_texels(c->build, letter)) {
        // The view may reach a little into a neighbour: kernels that rely on zeros outside of an
        // operand use an index far away.
        if (quirk_texel_size(bytes) && vk_buffer_bytes(t->buf) - offset - bytes >= QUIRK_TEXEL_STEP)
            b->bytes += QUIRK_TEXEL_STEP;
    } else if (bytes > o->dev->caps->max_storage_range) {
        ops_exceeds(o, k->name, t, "bytes in one storage buffer (maxStorageBufferRange)", bytes,
                    o->dev->caps->max_storage_range);
        return ERR_UNSUPPORTED;
    }
    return ERR_OK;
}

void ops_place(struct ops *o, const struct op_weight *w, struct tensor *packed, struct tensor *bias)
{
    *packed = w->packed;
    *bias = w->bias;
    if (w->stream && !w->kept && !o->error)
        ops_fail(o, stream_use(&o->parts, w, o->count, packed, bias));
}

static struct record *new_record(struct ops *o)
{
    if (o->count == o->room) {
        int room = o->room ? 2 * o->room : 64;
        struct record *records = realloc(o->records, (size_t)room * sizeof *records);
        if (!records)
            return NULL;
        o->records = records;
        o->room = room;
    }
    return memset(&o->records[o->count], 0, sizeof o->records[0]);
}

static enum err append(struct ops *o, const struct ops_call *asked)
{
    struct ops_device *dev = o->dev;
    struct ops_call planned = *asked, *call = &planned;
    struct kernel_choice c;
    char why[KERNEL_WHY];
    if (!dev->real)
        tune_call(dev, call);
    if (!kernel_choose(dev, call, &c, why))
        return vk_fail(dev->vk, ERR_UNSUPPORTED, "%s", why);
    const struct kernel *k = c.kernel;
    for (int i = 0; i < 3; i++)
        if (!call->groups[i])
            return ERR_INVALID;
    struct pipeline_key key = {
        .choice = c,
        .act_f16 = call->dtype == DT_F16,
        .weight_f16 = call->weight_dtype == DT_F16,
        .specs = call->specs,
    };
    memcpy(key.spec, call->spec, (size_t)call->specs * sizeof key.spec[0]);
    struct record *r = new_record(o);
    if (!r)
        return ERR_NO_MEMORY;
    for (int i = 0; k->bindings[i]; i++) {
        enum err e = bind(o, call, i, &c, &r->dispatch.binding[i]);
        if (e)
            return e;
    }
    r->pipeline = pipeline_find(dev, &key);
    if (r->pipeline < 0)
        return ERR_NO_MEMORY;
    memcpy(r->push, call->push, k->push_bytes);
    memcpy(r->dispatch.groups, call->groups, sizeof call->groups);
    o->count++;
    o->flops += call->flops;
    o->row_flops[k - kernel_at(0)] += call->flops;
    return ERR_OK;
}

void ops_dispatch(struct ops *o, const struct ops_call *call)
{
    assert(o->open && call->push);
    if (!o->error)
        ops_fail(o, append(o, call));
}

// ---- the finished recording
// -----------------------------------------------------------------------

// A software device compiles machine code at the first submission: run every new pipeline once,
// with its real bindings (their formats are part of what is compiled) and no workgroups.
static enum err warm(struct ops *o)
{
    struct ops_device *dev = o->dev;
    struct vk_cmd *cmd = NULL;
    int fresh = 0;
    enum err e = vk_cmd_create(dev->vk, &cmd);
    for (int i = 0; !e && i < o->count; i++) {
        struct pipeline *p = &dev->pipelines[o->records[i].pipeline];
        if (p->warm)
            continue;
        struct vk_dispatch d = o->records[i].dispatch;
        d.pipe = p->vk;
        d.push = o->records[i].push;
        memset(d.groups, 0, sizeof d.groups);
        vk_cmd_dispatch(cmd, &d);
        p->warm = true;
        fresh++;
    }
    uint64_t ticket;
    if (!e && fresh) {
        e = vk_cmd_end(cmd);
        if (!e)
            e = vk_submit(cmd, &ticket);
        if (!e)
            e = vk_wait(dev->vk, ticket, run_seconds);
    }
    vk_cmd_destroy(&cmd);
    return e;
}

static enum err record_command(struct ops *o, int first, int end, struct vk_cmd **cmd)
{
    enum err e = vk_cmd_create(o->dev->vk, cmd);
    if (e)
        return e;
    for (int i = first; i < end; i++) {
        struct record *r = &o->records[i];
        r->dispatch.pipe = o->dev->pipelines[r->pipeline].vk;
        r->dispatch.push = r->push;
        vk_cmd_dispatch(*cmd, &r->dispatch);
    }
    return vk_cmd_end(*cmd);
}

static enum err record_parts(struct ops *o)
{
    const int parts = stream_parts_count(o->parts);
    enum err e = ERR_OK;
    for (int i = 0; !e && i < parts; i++)
        e = record_command(o, stream_part_first(o->parts, i),
                           i + 1 < parts ? stream_part_first(o->parts, i + 1) : o->count,
                           stream_part_cmd(o->parts, i));
    return e;
}

enum err ops_end(struct ops *o)
{
    close_recording(o);
    if (o->dev->real)
        return o->error;
    tune_save(o->dev);
    if (!o->error)
        ops_fail(o, pipelines_create(o->dev));
    if (!o->error && o->dev->caps->cpu)
        ops_fail(o, warm(o));
    if (!o->error)
        ops_fail(o, o->parts ? record_parts(o) : record_command(o, 0, o->count, &o->cmd));
    if (o->error)
        return o->error;
    free(o->records);
    o->records = NULL;
    return o->error;
}

enum err ops_run(struct ops *o)
{
    if (o->error)
        return o->error;
    const double seconds = run_seconds + o->flops / slowest_flops;
    uint64_t ticket;
    if (o->parts)
        return stream_run(o->parts, seconds);
    enum err e = vk_submit(o->cmd, &ticket);
    return e ? e : vk_wait(o->dev->vk, ticket, seconds);
}

// Adds a part's time to those of the same name. Returns their number.
static int add_timing(struct ops_timing *out, int count, int max, const struct vk_timing *t)
{
    int at = 0;
    while (at < count && strcmp(out[at].name, t->name) != 0)
        at++;
    if (at == max)
        return count;
    if (at == count)
        out[count++] = (struct ops_timing){.name = t->name};
    out[at].calls += t->calls;
    out[at].seconds += t->seconds;
    return count;
}

int ops_timings(struct ops *o, struct ops_timing *out, int max)
{
    const int parts = o->parts ? stream_parts_count(o->parts) : 1;
    int all = 0;
    for (int part = 0; part < parts; part++) {
        struct vk_timing t[MAX_TIMINGS];
        struct vk_cmd *cmd = o->parts ? *stream_part_cmd(o->parts, part) : o->cmd;
        const int n = cmd ? vk_cmd_timings(cmd, t, MAX_TIMINGS) : 0;
        for (int i = 0; i < n; i++)
            all = add_timing(out, all, max, &t[i]);
    }
    for (int i = 0; i < all; i++)
        for (int row = 0; row < kernel_count(); row++)
            if (!strcmp(kernel_at(row)->name, out[i].name))
                out[i].flops = o->row_flops[row];
    return all;
}
