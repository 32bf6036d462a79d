// Parses the models of a service, see models_file.h. Called by settings.c. Knows nothing about what
// the keys mean.
#include "models_file.h"

#include "buf.h"
#include "engine_params.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

static const char *const keys[MODELS_KEYS] = {
    [MODELS_MODEL] = "model",
    [MODELS_VARIANT] = "variant",
    [MODELS_LORA] = "lora",
    [MODELS_TEXT_ENCODER] = "text-encoder",
    [MODELS_WEIGHTS] = "weights",
    [MODELS_DTYPE] = "dtype",
    [MODELS_LORA_CHOICES] = "lora-choices",
};

static enum err check_complete(const struct models_file *m, int line, struct fault *why)
{
    const struct models_entry *last = m->n ? &m->entry[m->n - 1] : NULL;
    if (!last || last->value[MODELS_MODEL])
        return ERR_OK;
    return fault_set(why, ERR_INVALID, "model",
                     "line %d: the section [%s] before it does not set model", line, last->name);
}

// line: "[name]", without spaces around it.
static enum err parse_section(struct models_file *m, char *line, int number, struct fault *why)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    char *name = line + 1;
    const size_t n = strcspn(name, "]");
    if (!name[n] || name[n + 1])
        return fault_set(why, ERR_INVALID, "", "line %d: expected \"[name]\"", number);
    name[n] = 0;
    if (!n || n > MODELS_NAME || strspn(name, letters) != n)
        return fault_set(why, ERR_INVALID, "",
                         "line %d: \"%.64s\" is not a model name: use 1 to %d letters, digits, "
                         "dots, dashes and underscores",
                         number, name, MODELS_NAME);
    for (int i = 0; i < m->n; i++)
        if (!strcmp(m->entry[i].name, name))
            return fault_set(why, ERR_INVALID, "", "line %d: there are two sections [%s]", number,
                             name);
    if (m->n == MODELS_MAX)
        return fault_set(why, ERR_INVALID, "", "line %d: more than %d models", number, MODELS_MAX);
    m->entry[m->n++] = (struct models_entry){.name = name};
    return ERR_OK;
}

static enum err refuse_key(const char *key, int number, struct fault *why)
{
    const char *best = NULL;
    for (int i = 0; i < MODELS_KEYS; i++)
        best = text_nearer(key, keys[i], best);
    if (best)
        return fault_set(why, ERR_INVALID, "",
                         "line %d: unknown key \"%.60s\"; did you mean \"%s\"?", number, key, best);
    return fault_set(why, ERR_INVALID, "",
                     "line %d: unknown key \"%.60s\"; a section may set model, variant, "
                     "text-encoder, lora, lora-choices, dtype and weights",
                     number, key);
}

static enum err parse_value(struct models_file *m, char *line, int number, struct fault *why)
{
    char *value = strchr(line, '=');
    int i = 0;
    if (!value)
        return fault_set(why, ERR_INVALID, "", "line %d: expected \"[name]\" or \"key = value\"",
                         number);
    *value++ = 0;
    const char *key = text_trim(line);
    value = text_trim(value);
    while (i < MODELS_KEYS && strcmp(keys[i], key))
        i++;
    if (i == MODELS_KEYS)
        return refuse_key(key, number, why);
    if (!m->n)
        return fault_set(why, ERR_INVALID, "",
                         "line %d: %s is set before the first section; begin with a model's name, "
                         "such as [default]",
                         number, key);
    struct models_entry *e = &m->entry[m->n - 1];
    if (e->value[i])
        return fault_set(why, ERR_INVALID, "", "line %d: %s is set twice in [%s]", number, key,
                         e->name);
    if (!*value)
        return fault_set(why, ERR_INVALID, "",
                         "line %d: %s is empty in [%s]; remove the line, or set a value", number,
                         key, e->name);
    e->value[i] = value;
    return ERR_OK;
}

static enum err parse_lines(struct models_file *m, struct fault *why)
{
    int number = 0;
    enum err err = ERR_OK;
    for (char *at = m->text, *end; !err && at; at = end) {
        end = strchr(at, '\n');
        if (end)
            *end++ = 0;
        number++;
        char *s = text_trim(at);
        if (*s == '[') {
            err = check_complete(m, number, why);
            if (!err)
                err = parse_section(m, s, number, why);
        } else if (*s && *s != '#') {
            err = parse_value(m, s, number, why);
        }
    }
    if (!err && !m->n)
        return fault_set(why, ERR_INVALID, "",
                         "there is no section; name a model, such as "
                         "[default]");
    return err ? err : check_complete(m, number, why);
}

enum err models_file_parse(const char *text, size_t n, struct models_file *out, struct fault *why)
{
    *out = (struct models_file){0};
    if (n && memchr(text, 0, n))
        return fault_set(why, ERR_INVALID, "", "it is not text");
    out->text = strndup(text, n);
    if (!out->text)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    const enum err err = parse_lines(out, why);
    if (err)
        models_file_deinit(out);
    return err;
}

enum err models_file_read(const char *path, struct models_file *out, struct fault *why)
{
    enum { LARGEST = 1 << 20 };
    struct buf b = {0};
    struct fault inner = {0};
    enum err err = buf_read_file(&b, path, LARGEST, why);
    if (!err)
        err = models_file_parse(b.data ? b.data : "", b.len, out, &inner);
    if (inner.code)
        fault_set(why, err, "models-file", "models-file %.100s: %s", path, inner.msg);
    buf_deinit(&b);
    return err;
}

void models_file_deinit(struct models_file *m)
{
    free(m->text);
    *m = (struct models_file){0};
}

void models_entry_apply(const struct models_entry *e, struct engine_params *p)
{
    const char **const fields[MODELS_KEYS] = {
        [MODELS_MODEL] = &p->model,
        [MODELS_VARIANT] = &p->variant,
        [MODELS_LORA] = &p->lora,
        [MODELS_TEXT_ENCODER] = &p->text_encoder,
        [MODELS_WEIGHTS] = &p->weights,
        [MODELS_DTYPE] = &p->dtype,
        [MODELS_LORA_CHOICES] = &p->lora_choices,
    };
    p->name = e->name;
    for (int i = 0; i < MODELS_KEYS; i++)
        if (e->value[i])
            *fields[i] = e->value[i];
}
