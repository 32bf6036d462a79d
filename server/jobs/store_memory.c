// The store for those who want none: jobs live as long as the process. The job core keeps the
// images, so every function here has nothing to do.
#include "store.h"

#include <stdlib.h>

static enum err memory_put(struct store *s, const struct job *j, struct fault *why)
{
    return ERR_OK;
}

static enum err memory_load(struct store *s, void (*row)(void *ctx, struct job *j), void *ctx,
                            struct fault *why)
{
    return ERR_OK;
}

static void memory_close(struct store **s)
{
    free(*s);
    *s = NULL;
}

static const struct store_ops memory_ops = {
    .name = "memory",
    .put = memory_put,
    .remove = memory_put,
    .load = memory_load,
    .close = memory_close,
};

enum err store_memory_open(struct store **out, struct fault *why)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return fault_set(why, ERR_NO_MEMORY, "store", "%s", err_text(ERR_NO_MEMORY));
    (*out)->ops = &memory_ops;
    return ERR_OK;
}
