// A file of prompts for `imagend generate --prompts`. Called by generate.c on the only thread.
#include "cli.h"

#include <stdlib.h>
#include <string.h>

enum { LARGEST_FILE = 64 << 20, MOST_PROMPTS = 100000 };

static size_t count_lines(const struct buf *b)
{
    size_t n = 0;

    for (size_t i = 0; i < b->len; i++)
        n += b->data[i] == '\n';
    return n + (b->len && b->data[b->len - 1] != '\n');
}

static void split(struct cli_prompts *p)
{
    char *at = p->text.data, *end = at + p->text.len;

    for (int i = 0; i < p->count; i++) {
        char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop)
            stop = end;
        p->line[i] = at;
        *stop = 0;
        if (stop > at && stop[-1] == '\r')
            stop[-1] = 0;
        at = stop + 1;
    }
}

enum err cli_prompts_read(struct cli_prompts *p, const char *path, struct fault *why)
{
    enum err e = buf_read_file(&p->text, path, LARGEST_FILE, why);
    size_t n;

    if (e)
        return e;
    n = count_lines(&p->text);
    if (!n || n > MOST_PROMPTS)
        return fault_set(why, ERR_INVALID, "prompts", "%s has %zu lines; 1 to %d are wanted",
                         fault_path(path), n, MOST_PROMPTS);
    if (memchr(p->text.data, 0, p->text.len))
        return fault_set(why, ERR_INVALID, "prompts", "%s is not text: it has a NUL byte",
                         fault_path(path));
    p->line = calloc(n, sizeof *p->line);
    if (!p->line)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    p->count = (int)n;
    split(p);
    return ERR_OK;
}

void cli_prompts_deinit(struct cli_prompts *p)
{
    free(p->line);
    buf_deinit(&p->text);
}
