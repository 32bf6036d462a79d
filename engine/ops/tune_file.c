// The text of a tuned table: what it is valid for, one line per class (its numbers, then the row
// and the build, or "estimate"), and a count and a hash that show damage. Called by tune.c. Thread:
// the engine's worker.
#include "kernels.h"
#include "tune.h"

#include <stdio.h>
#include <string.h>

enum { LINE = 512 };
static const char magic[] = "imagend kernels 2", estimates[] = "estimate";

static void id_line(const struct tune_id *id, char line[LINE])
{
    char uuid[33], hash[33];
    for (size_t i = 0; i < sizeof id->uuid; i++)
        snprintf(uuid + 2 * i, 3, "%02x", id->uuid[i]);
    hash_hex(id->kernels, hash);
    snprintf(line, LINE, "device %s driver %08x program %.64s kernels %s", uuid, id->driver,
             id->program, hash);
}

static void end_line(const char *text, size_t n, int count, char line[LINE])
{
    char hash[33];
    hash_hex(hash_bytes(text, n, 0), hash);
    snprintf(line, LINE, "end %d %s", count, hash);
}

void tune_write(const struct tune_table *t, const struct tune_id *id, struct buf *out)
{
    char line[LINE];
    id_line(id, line);
    buf_printf(out, "%s\n%s\n", magic, line);
    for (int i = 0; i < t->count; i++) {
        const struct tune_choice *c = &t->choice[i];
        for (int k = 0; k < TUNE_NUMBERS; k++)
            buf_printf(out, "%u ", c->of[k]);
        if (c->row < 0)
            buf_printf(out, "%s\n", estimates);
        else
            buf_printf(out, "%s %s\n", kernel_at(c->row)->name,
                       kernel_at(c->row)->build[c->build].name);
    }
    end_line(out->data, out->len, t->count, line);
    buf_printf(out, "%s\n", line);
}

// ---- reading ----------------------------------------------------------------------------------

struct cursor {
    const char *at, *end;
};

// The next line, without its end; false: there is none, or it is too long or has a NUL.
static bool next_line(struct cursor *c, char line[LINE])
{
    if (c->at == c->end)
        return false;
    const char *end = memchr(c->at, '\n', (size_t)(c->end - c->at));
    const size_t n = end ? (size_t)(end - c->at) : LINE;
    if (n >= LINE || memchr(c->at, 0, n))
        return false;
    memcpy(line, c->at, n);
    line[n] = 0;
    c->at = end + 1;
    return true;
}

// A decimal number and the space behind it.
static bool take_number(const char **at, uint32_t *out)
{
    uint64_t v = 0;
    const char *p = *at;
    for (; *p >= '0' && *p <= '9' && v <= UINT32_MAX; p++)
        v = v * 10 + (uint64_t)(*p - '0');
    if (p == *at || *p != ' ' || v > UINT32_MAX)
        return false;
    *at = p + 1;
    *out = (uint32_t)v;
    return true;
}

// Both are names of the table, and the row computes the class's operator; or neither is needed.
static bool take_names(const char *text, struct tune_choice *c)
{
    const size_t n = strcspn(text, " ");
    if (!strcmp(text, estimates))
        return c->of[0] < OP_COUNT;
    for (int row = 0; row < kernel_count() && c->row < 0; row++) {
        const struct kernel *k = kernel_at(row);
        if (strlen(k->name) != n || memcmp(k->name, text, n) != 0 || !text[n])
            continue;
        for (int b = 0; b < k->builds; b++)
            if (!strcmp(k->build[b].name, text + n + 1)) {
                c->row = row;
                c->build = b;
            }
    }
    return c->row >= 0 && c->of[0] < OP_COUNT && (kernel_at(c->row)->ops >> c->of[0] & 1);
}

static bool take_choice(const char *line, struct tune_table *t)
{
    struct tune_choice c = {.row = -1};
    for (int i = 0; i < TUNE_NUMBERS; i++)
        if (!take_number(&line, &c.of[i]))
            return false;
    if (t->count == TUNE_CLASSES || !take_names(line, &c))
        return false;
    for (int i = 0; i < t->count; i++)
        if (!memcmp(t->choice[i].of, c.of, sizeof c.of))
            return false;
    t->choice[t->count++] = c;
    return true;
}

static enum err parse(struct cursor c, const struct tune_id *id, struct tune_table *out)
{
    const char *const text = c.at;
    char line[LINE], want[LINE];
    if (!next_line(&c, line) || strcmp(line, magic) != 0 || !next_line(&c, line))
        return ERR_FORMAT;
    id_line(id, want);
    const bool ours = !strcmp(line, want);
    for (;;) {
        const size_t before = (size_t)(c.at - text);
        if (!next_line(&c, line))
            return ERR_FORMAT;
        if (!strncmp(line, "end ", 4)) {
            // Rows of another program may have other names, so their lines are not read.
            const char *number = line + 4;
            uint32_t count;
            if (!take_number(&number, &count) || (ours && count != (uint32_t)out->count))
                return ERR_FORMAT;
            end_line(text, before, (int)count, want);
            return strcmp(line, want) != 0 || c.at != c.end ? ERR_FORMAT
                   : ours                                   ? ERR_OK
                                                            : ERR_UNSUPPORTED;
        }
        if (ours && !take_choice(line, out))
            return ERR_FORMAT;
    }
}

enum err tune_parse(const char *text, size_t n, const struct tune_id *id, struct tune_table *out)
{
    out->count = 0;
    const enum err e = parse((struct cursor){text, text + n}, id, out);
    if (e)
        out->count = 0;
    return e;
}
