// Reads a file of prompts for `imagend generate --prompts`. Called by generate.c on the only
// thread.
#include "cli.h"

#include <stdlib.h>
#include <string.h>

enum { LARGEST_FILE = 64 << 20, MOST_PROMPTS = 100000 };

static size_t count_lines(const char *at, const char *end)
{
    size_t n = 0;

    for (const char *s = at; s < end; s++)
        n += *s == '\n';
    return n + (at < end && end[-1] != '\n');
}

static bool is_blank(const char *s)
{
    return !s[strspn(s, " \t\r\v\f")];
}

static int split(struct cli_prompts *p, char *at, char *end)
{
    int prompts = 0;

    for (int i = 0; i < p->count; i++) {
        char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop)
            stop = end;
        *stop = 0;
        if (stop > at && stop[-1] == '\r')
            stop[-1] = 0;
        p->line[i] = is_blank(at) ? NULL : at;
        prompts += p->line[i] != NULL;
        at = stop + 1;
    }
    return prompts;
}

// Names the format of bytes that are not text; NULL: text.
static const char *is_not_text(const struct buf *b)
{
    if (b->len >= 2 && (!memcmp(b->data, "\xff\xfe", 2) || !memcmp(b->data, "\xfe\xff", 2)))
        return "is in UTF-16; save it as UTF-8";
    return memchr(b->data, 0, b->len) ? "is not a text file: it contains a NUL byte" : NULL;
}

enum err cli_prompts_read(struct cli_prompts *p, const char *path, struct fault *why)
{
    const bool standard = !strcmp(path, "-");
    enum err e = buf_read_file(&p->text, standard ? "/dev/stdin" : path, LARGEST_FILE, why);
    const char *name = standard ? "standard input" : fault_path(path);
    size_t n;

    if (e)
        return e;
    char *at = p->text.data, *end = at + p->text.len;
    if (p->text.len >= 3 && !memcmp(at, "\xef\xbb\xbf", 3))
        at += 3;
    n = count_lines(at, end);
    if (!n || n > MOST_PROMPTS)
        return fault_set(why, ERR_INVALID, "prompts", "%s has %zu lines; expected 1 to %d", name, n,
                         MOST_PROMPTS);
    if (is_not_text(&p->text))
        return fault_set(why, ERR_INVALID, "prompts", "%s %s", name, is_not_text(&p->text));
    p->line = calloc(n, sizeof *p->line);
    if (!p->line)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    p->count = (int)n;
    if (!split(p, at, end))
        return fault_set(why, ERR_INVALID, "prompts", "%s has no prompts, only blank lines", name);
    return ERR_OK;
}

void cli_prompts_deinit(struct cli_prompts *p)
{
    free(p->line);
    buf_deinit(&p->text);
}
