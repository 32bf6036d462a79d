// Byte-pair encoding, see bpe.h. Knows nothing about prompts or files. Source: transformers
// CLIPTokenizer.bpe and bytes_to_unicode.
#include "bpe.h"

#include "buf.h"
#include "hash.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const char END[] = "</w>"; // marks the last symbol of a word
enum { END_LEN = 4, NONE = -1, MAX_ID = 1 << 24 };

struct symbol {
    size_t at, n; // in bpe.text
    int id;       // in the vocabulary; NONE: only an intermediate result
};

struct merge {
    int left, right, rank, result; // symbols; left NONE: free
};

struct bpe {
    struct buf text;
    struct symbol *symbol;
    int symbols, capacity;
    int *by_text; // hash table of symbols, NONE: free
    struct merge *merge;
    size_t texts, merges; // sizes of the hash tables, powers of 2
    int merged, ranks;
    int base[256][2]; // the symbol of a byte: inside a word, at its end
    int unknown, tokens;
};

enum err bpe_create(struct bpe **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? ERR_OK : ERR_NO_MEMORY;
}

void bpe_destroy(struct bpe **b)
{
    if (!*b)
        return;
    buf_deinit(&(*b)->text);
    free((*b)->symbol);
    free((*b)->by_text);
    free((*b)->merge);
    free(*b);
    *b = NULL;
}

// ---- symbols ----------------------------------------------------------------------------------

static bool is_text(const struct bpe *b, int symbol, const char *text, size_t n)
{
    const struct symbol *s = &b->symbol[symbol];

    return s->n == n && !memcmp(b->text.data + s->at, text, n);
}

// The place of a text in the hash table: its own, or the free one where it belongs.
static size_t text_place(const struct bpe *b, const char *text, size_t n)
{
    size_t at = (size_t)hash_bytes(text, n, 0).lo & (b->texts - 1);

    while (b->by_text[at] != NONE && !is_text(b, b->by_text[at], text, n))
        at = (at + 1) & (b->texts - 1);
    return at;
}

static bool grow_texts(struct bpe *b)
{
    const size_t size = b->texts ? 2 * b->texts : 1024;
    int *table = malloc(size * sizeof *table);

    if (!table)
        return false;
    free(b->by_text);
    b->by_text = table;
    b->texts = size;
    for (size_t i = 0; i < size; i++)
        table[i] = NONE;
    for (int i = 0; i < b->symbols; i++)
        table[text_place(b, b->text.data + b->symbol[i].at, b->symbol[i].n)] = i;
    return true;
}

static bool grow_symbols(struct bpe *b)
{
    const int capacity = b->capacity ? 2 * b->capacity : 1024;
    struct symbol *symbol = realloc(b->symbol, (size_t)capacity * sizeof *symbol);

    if (!symbol)
        return false;
    b->symbol = symbol;
    b->capacity = capacity;
    return true;
}

// The symbol with this text, which is added if it is new; NONE: no memory.
static int intern(struct bpe *b, const char *text, size_t n)
{
    size_t at;

    if ((size_t)b->symbols * 2 >= b->texts && !grow_texts(b))
        return NONE;
    at = text_place(b, text, n);
    if (b->by_text[at] != NONE)
        return b->by_text[at];
    if (b->symbols == b->capacity && !grow_symbols(b))
        return NONE;
    b->symbol[b->symbols] = (struct symbol){.at = b->text.len, .n = n, .id = NONE};
    buf_add(&b->text, text, n);
    if (b->text.failed)
        return NONE;
    b->by_text[at] = b->symbols;
    return b->symbols++;
}

int bpe_find(const struct bpe *b, const char *text, size_t n)
{
    const int symbol = b->texts && n ? b->by_text[text_place(b, text, n)] : NONE;

    return symbol == NONE ? -1 : b->symbol[symbol].id;
}

int bpe_tokens(const struct bpe *b)
{
    return b->tokens;
}

enum err bpe_add_token(struct bpe *b, const char *text, size_t n, int id)
{
    const int symbol = n ? intern(b, text, n) : NONE;

    if (!n || id < 0 || id >= MAX_ID)
        return ERR_FORMAT;
    if (symbol == NONE)
        return ERR_NO_MEMORY;
    if (b->symbol[symbol].id != NONE)
        return ERR_FORMAT;
    b->symbol[symbol].id = id;
    b->tokens = id >= b->tokens ? id + 1 : b->tokens;
    return ERR_OK;
}

// ---- merges -----------------------------------------------------------------------------------

static size_t merge_place(const struct bpe *b, int left, int right)
{
    const int pair[2] = {left, right};
    size_t at = (size_t)hash_bytes(pair, sizeof pair, 0).lo & (b->merges - 1);

    while (b->merge[at].left != NONE && (b->merge[at].left != left || b->merge[at].right != right))
        at = (at + 1) & (b->merges - 1);
    return at;
}

static bool grow_merges(struct bpe *b)
{
    const size_t old = b->merges, size = old ? 2 * old : 1024;
    struct merge *from = b->merge, *table = malloc(size * sizeof *table);

    if (!table)
        return false;
    for (size_t i = 0; i < size; i++)
        table[i].left = NONE;
    b->merge = table;
    b->merges = size;
    for (size_t i = 0; i < old; i++)
        if (from[i].left != NONE)
            table[merge_place(b, from[i].left, from[i].right)] = from[i];
    free(from);
    return true;
}

enum err bpe_add_merge(struct bpe *b, const char *left, size_t n, const char *right, size_t m)
{
    struct buf both = {0};
    int a, c, result;
    size_t at;

    buf_add(&both, left, n);
    buf_add(&both, right, m);
    a = intern(b, left, n);
    c = intern(b, right, m);
    result = both.failed ? NONE : intern(b, both.data, both.len);
    buf_deinit(&both);
    if (a == NONE || c == NONE || result == NONE ||
        ((size_t)b->merged * 2 >= b->merges && !grow_merges(b)))
        return ERR_NO_MEMORY;
    // A pair that is listed twice has the later rank, as in the dict that the library makes.
    at = merge_place(b, a, c);
    b->merged += b->merge[at].left == NONE;
    b->merge[at] = (struct merge){a, c, b->ranks++, result};
    return ERR_OK;
}

// The character that stands for a byte: itself if it is visible in Latin-1, else one after U+00FF.
static uint32_t character_of(unsigned byte)
{
    uint32_t next = 256;

    for (unsigned i = 0; i <= byte; i++) {
        const bool visible =
            (i >= 0x21 && i <= 0x7e) || (i >= 0xa1 && i <= 0xac) || (i >= 0xae && i <= 0xff);
        if (i == byte)
            return visible ? byte : next;
        next += !visible;
    }
    return 0;
}

enum err bpe_finish(struct bpe *b, int unknown)
{
    if (!b->merges && !grow_merges(b))
        return ERR_NO_MEMORY;
    b->unknown = unknown;
    for (unsigned i = 0; i < 256; i++) {
        const uint32_t c = character_of(i);
        char text[2 + END_LEN];
        size_t n = 0;
        if (c < 0x80) {
            text[n++] = (char)c;
        } else {
            text[n++] = (char)(0xc0 | c >> 6);
            text[n++] = (char)(0x80 | (c & 0x3f));
        }
        memcpy(text + n, END, END_LEN);
        b->base[i][0] = intern(b, text, n);
        b->base[i][1] = intern(b, text, n + END_LEN);
        if (b->base[i][0] == NONE || b->base[i][1] == NONE)
            return ERR_NO_MEMORY;
    }
    return ERR_OK;
}

// ---- encoding ---------------------------------------------------------------------------------

// A pair that can be merged, in a heap: the first learned, then the leftmost, comes first.
struct candidate {
    int rank, at, left, right, result;
};

struct word {
    const struct bpe *b;
    int *symbol, *next, *before; // a list; a symbol that was merged into the one before is NONE
    struct candidate *heap;
    int heaped;
};

static bool comes_first(const struct candidate *x, const struct candidate *y)
{
    return x->rank != y->rank ? x->rank < y->rank : x->at < y->at;
}

static void heap_push(struct word *w, struct candidate c)
{
    int i = w->heaped++;

    for (; i && comes_first(&c, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static struct candidate heap_pop(struct word *w)
{
    const struct candidate top = w->heap[0], last = w->heap[--w->heaped];
    int i = 0, child;

    while ((child = 2 * i + 1) < w->heaped) {
        child += child + 1 < w->heaped && comes_first(&w->heap[child + 1], &w->heap[child]);
        if (!comes_first(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

// Adds the pair that begins at `at`, if it can be merged.
static void consider(struct word *w, int at)
{
    const int next = at == NONE ? NONE : w->next[at];
    const struct merge *m;

    if (next == NONE)
        return;
    m = &w->b->merge[merge_place(w->b, w->symbol[at], w->symbol[next])];
    if (m->left != NONE)
        heap_push(w, (struct candidate){m->rank, at, m->left, m->right, m->result});
}

static void merge_all(struct word *w)
{
    while (w->heaped) {
        const struct candidate c = heap_pop(w);
        const int next = w->symbol[c.at] == c.left ? w->next[c.at] : NONE;
        // One of the two may have been merged with another neighbor.
        if (next == NONE || w->symbol[next] != c.right)
            continue;
        w->symbol[c.at] = c.result;
        w->symbol[next] = NONE;
        w->next[c.at] = w->next[next];
        if (w->next[next] != NONE)
            w->before[w->next[next]] = c.at;
        consider(w, w->before[c.at]);
        consider(w, c.at);
    }
}

enum err bpe_encode(const struct bpe *b, const char *word, size_t n, void (*add)(void *ctx, int id),
                    void *ctx)
{
    int *numbers = malloc(3 * n * sizeof *numbers);
    struct word w = {.b = b, .symbol = numbers};

    // Each merge removes a symbol and adds at most two pairs.
    w.heap = malloc(3 * n * sizeof *w.heap);
    if (!n || !numbers || !w.heap) {
        free(numbers);
        free(w.heap);
        return n ? ERR_NO_MEMORY : ERR_OK;
    }
    w.next = numbers + n;
    w.before = numbers + 2 * n;
    for (size_t i = 0; i < n; i++) {
        w.symbol[i] = b->base[(unsigned char)word[i]][i + 1 == n];
        w.next[i] = i + 1 == n ? NONE : (int)i + 1;
        w.before[i] = (int)i - 1;
    }
    for (size_t i = 0; i < n; i++)
        consider(&w, (int)i);
    merge_all(&w);
    for (int i = 0; i != NONE; i = w.next[i]) {
        const int id = b->symbol[w.symbol[i]].id;
        add(ctx, id == NONE ? b->unknown : id);
    }
    free(numbers);
    free(w.heap);
    return ERR_OK;
}
