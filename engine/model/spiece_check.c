// Checks that a SentencePiece model is safe to load. The library trusts the normalization rules in
// the file: it follows a double array wherever its offsets point and reads texts there. Callers:
// tokenizer_load.c and a fuzz target. Any thread. Source: sentencepiece_model.proto; the unit
// layout and common-prefix search of Darts-clone, as sentencepiece's normalizer uses them.
#include "tokenizer_priv.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// ---- the wire format ------------------------------------------------------------------------

struct wire {
    const unsigned char *p, *end;
};

struct field {
    uint32_t number;
    unsigned type;      // 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes
    uint64_t value;     // of a varint
    struct wire inside; // of a length-delimited field
};

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static bool read_varint(struct wire *w, int most_bytes, uint64_t *out)
{
    uint64_t v = 0;

    for (int i = 0; i < most_bytes && w->p < w->end; i++) {
        unsigned char b = *w->p++;
        v |= (uint64_t)(b & 0x7f) << 7 * i;
        if (b < 0x80) {
            *out = v;
            return true;
        }
    }
    return false;
}

static bool skip_bytes(struct wire *w, uint64_t n)
{
    if ((uint64_t)(w->end - w->p) < n)
        return false;
    w->p += n;
    return true;
}

// Returns false for a malformed field; the caller checks for the end.
static bool next_field(struct wire *w, struct field *f)
{
    uint64_t tag, len;

    *f = (struct field){0};
    if (!read_varint(w, 5, &tag) || tag > UINT32_MAX || !(tag >> 3))
        return false;
    f->number = (uint32_t)(tag >> 3);
    f->type = tag & 7;
    switch (f->type) {
    case VARINT: return read_varint(w, 10, &f->value);
    case FIXED64: return skip_bytes(w, 8);
    case FIXED32: return skip_bytes(w, 4);
    case BYTES:
        if (!read_varint(w, 10, &len))
            return false;
        f->inside = (struct wire){w->p, w->p + (len <= (uint64_t)(w->end - w->p) ? len : 0)};
        return skip_bytes(w, len);
    default: return false;
    }
}

// ---- the double array -----------------------------------------------------------------------

enum { BLOCK = 256, MAX_MATCHES = 32 }; // MAX_MATCHES: the library's limit of prefix matches

struct rules {
    const unsigned char *unit; // little-endian words
    uint32_t units;
    const char *text; // replacement texts, NUL-terminated
    size_t text_size;
    unsigned char *state;      // per unit: UNSEEN, OPEN, or DONE + the most matches below it
    uint32_t *first, *sibling; // first child per base, next sibling per unit
    struct visit *stack;       // the path to the current unit
    uint32_t depth;
};

struct visit {
    uint32_t unit, next;   // next: the child to visit next
    unsigned char matches; // the maximum below it so far
};

enum { UNSEEN, OPEN, DONE };
static const uint32_t NONE = UINT32_MAX;

static uint32_t unit_at(const struct rules *r, uint32_t i)
{
    const unsigned char *p = r->unit + 4 * (size_t)i;
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t base_of(const struct rules *r, uint32_t i)
{
    uint32_t u = unit_at(r, i);
    return i ^ (u >> 10) << ((u & 1u << 9) >> 6);
}

static bool has_leaf(const struct rules *r, uint32_t i)
{
    return unit_at(r, i) >> 8 & 1;
}

// Checks that the unit's children are inside the array, and its replacement inside the texts.
static bool unit_ok(const struct rules *r, uint32_t i)
{
    uint32_t base = base_of(r, i);

    if (base >= r->units || (base | (BLOCK - 1)) >= r->units)
        return false;
    return !has_leaf(r, i) || (unit_at(r, base) & 0x7fffffff) < r->text_size;
}

static bool push(struct rules *r, uint32_t i)
{
    if (!unit_ok(r, i))
        return false;
    r->state[i] = OPEN;
    r->stack[r->depth++] = (struct visit){.unit = i, .next = r->first[base_of(r, i)]};
    return true;
}

// Closes the unit on top of the stack. A root has no match of its own.
static bool pop(struct rules *r)
{
    const struct visit *v = &r->stack[--r->depth];
    unsigned matches = v->matches + (r->depth && has_leaf(r, v->unit));

    if (matches > MAX_MATCHES)
        return false;
    r->state[v->unit] = (unsigned char)(DONE + matches);
    if (r->depth && matches > r->stack[r->depth - 1].matches)
        r->stack[r->depth - 1].matches = (unsigned char)matches;
    return true;
}

// Links every unit to its parent: the unit's label implies the base of its parent. A leaf's word
// has the top bit set and is not a child.
static void link_children(struct rules *r)
{
    for (uint32_t i = 0; i < r->units; i++)
        r->first[i] = NONE;
    for (uint32_t i = 0; i < r->units; i++) {
        uint32_t u = unit_at(r, i), base = i ^ (u & 0xff);
        if (u >> 31)
            continue;
        r->sibling[i] = r->first[base];
        r->first[base] = i;
    }
}

// Whether everything reachable from the root is in bounds and acyclic, and no text has more than
// MAX_MATCHES matches.
static bool walk(struct rules *r)
{
    link_children(r);
    if (!push(r, 0))
        return false;
    while (r->depth) {
        struct visit *top = &r->stack[r->depth - 1];
        uint32_t child = top->next;
        if (child == NONE) {
            if (!pop(r))
                return false;
            continue;
        }
        top->next = r->sibling[child];
        if (r->state[child] == OPEN)
            return false; // a cycle
        if (r->state[child] == UNSEEN) {
            if (!push(r, child))
                return false;
        } else if (r->state[child] - DONE > top->matches) {
            top->matches = (unsigned char)(r->state[child] - DONE);
        }
    }
    return true;
}

// Checks precompiled_charsmap: the array's size in bytes, the array, the texts.
static const char *check_charsmap(struct wire w)
{
    struct rules r = {0};
    size_t n = (size_t)(w.end - w.p);
    const char *says = NULL;
    uint32_t size;

    if (!n)
        return NULL;
    if (n < 4)
        return "its normalization rules are truncated";
    memcpy(&size, w.p, 4);
    if (size > n - 4 || size % (4 * BLOCK) || !size)
        return "the size of its normalization rules is invalid";
    r.unit = w.p + 4;
    r.units = size / 4;
    r.text = (const char *)w.p + 4 + size;
    r.text_size = n - 4 - size;
    if (!r.text_size || r.text[r.text_size - 1])
        return "its normalization strings are not terminated";
    r.state = calloc(r.units, 1);
    r.stack = malloc(r.units * sizeof *r.stack);
    r.first = malloc(r.units * sizeof *r.first);
    r.sibling = malloc(r.units * sizeof *r.sibling);
    if (!r.state || !r.stack || !r.first || !r.sibling)
        says = "out of memory";
    else if (!walk(&r))
        says = "its normalization rules refer to entries that do not exist";
    free(r.state);
    free(r.stack);
    free(r.first);
    free(r.sibling);
    return says;
}

// ---- the model ------------------------------------------------------------------------------

static const char *check_normalizer(struct wire w)
{
    enum { CHARSMAP = 2 };
    const char *says = NULL;
    struct field f;

    while (!says && w.p < w.end) {
        if (!next_field(&w, &f))
            return "its normalizer is malformed";
        if (f.number == CHARSMAP && f.type == BYTES)
            says = check_charsmap(f.inside);
    }
    return says;
}

static const char *check_trainer(struct wire w)
{
    enum { MODEL_TYPE = 3, UNIGRAM = 1 };
    struct field f;

    while (w.p < w.end) {
        if (!next_field(&w, &f))
            return "its trainer settings are malformed";
        if (f.number == MODEL_TYPE && f.type == VARINT && f.value != UNIGRAM)
            return "only unigram models are supported";
    }
    return NULL;
}

const char *spiece_check(const void *bytes, size_t n)
{
    enum { TRAINER = 2, NORMALIZER = 3, DENORMALIZER = 5 };
    struct wire w = {bytes, (const unsigned char *)bytes + n};
    const char *says = NULL;
    struct field f;

    if (!n)
        return "it is empty";
    while (!says && w.p < w.end) {
        if (!next_field(&w, &f))
            return "it is not a protocol buffer";
        if (f.type != BYTES)
            continue;
        if (f.number == TRAINER)
            says = check_trainer(f.inside);
        else if (f.number == NORMALIZER || f.number == DENORMALIZER)
            says = check_normalizer(f.inside);
    }
    return says;
}
