// Opens a GGUF file for test_gguf.py: `dump FILE` writes each tensor's name, type and shape to
// standard error and its values, as floats, to standard output; `dump FILE TEXT...` writes the ids
// that the file's own tokenizer gives the texts. An error is one sentence and exit status 1.
#include "gguf_t5.h"
#include "safetensors.h"
#include "tokenizer.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int dump_tensors(const struct gguf *g)
{
    const struct safetensors *s = gguf_tensors(g);

    for (size_t i = 0; i < safetensors_count(s); i++) {
        const struct safetensor *t = safetensors_at(s, i);
        float *values = calloc(t->elements ? t->elements : 1, sizeof *values);
        fprintf(stderr, "%s %s", t->name, safetensors_dtype_name(t->dtype));
        for (int d = 0; d < t->dims; d++)
            fprintf(stderr, " %llu", (unsigned long long)t->shape[d]);
        fputc('\n', stderr);
        if (!values)
            return 2;
        if (safetensors_is_float(t->dtype)) {
            safetensors_f32(t, 0, t->elements, values);
            fwrite(values, sizeof *values, t->elements, stdout);
        }
        free(values);
    }
    return 0;
}

static int dump_ids(const char *path, char **texts, struct fault *why)
{
    uint32_t ids[TOKENIZER_IF_LENGTH], mask[TOKENIZER_IF_LENGTH];
    struct tokenizer *t = NULL;

    if (tokenizer_open(path, &t, why))
        return 1;
    for (; *texts; texts++) {
        int n = 0;
        if (tokenizer_encode(t, *texts, strlen(*texts), TOKENIZER_IF_LENGTH, ids, mask, &n))
            return 2;
        for (int i = 0; i < n; i++)
            printf("%s%u", i ? " " : "", ids[i]);
        printf("\n");
    }
    printf("%d\n", tokenizer_vocab(t));
    tokenizer_close(&t);
    return 0;
}

int main(int argc, char **argv)
{
    struct gguf *g = NULL;
    struct t5_config c;
    struct fault why = {0};
    int status = 1;

    if (argc < 2)
        return 2;
    if (argc > 2)
        status = dump_ids(argv[1], argv + 2, &why);
    else if (!gguf_open(argv[1], &g, &why) && !gguf_t5_config(g, &c, &why))
        status = dump_tensors(g);
    if (status == 1)
        fprintf(stderr, "%s\n", why.msg);
    gguf_close(&g);
    return status;
}
