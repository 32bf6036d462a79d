// The table of attachments, see attachments.h. Called by the job core on the loop thread, and by
// workers and the thread pool where images are decoded.
#include "attachments.h"

#include "hash.h"
#include "log.h"
#include "store.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { BUCKETS = 1024 };

struct attachment {
    struct attachment *next;
    char name[ATTACHMENT_NAME];
    struct blob *file; // NULL: on disk only
    size_t size;
    int refs;
};

struct attachments {
    struct store *store;
    size_t most, bytes;
    uv_mutex_t lock; // protects file, which pool threads read and drop
    struct attachment *bucket[BUCKETS];
};

static bool holds_files(const struct attachments *a)
{
    return a->store->ops->put_file;
}

static struct attachment **place_of(struct attachments *a, const char *name)
{
    struct attachment **at = &a->bucket[hash_text(name).lo % BUCKETS];
    while (*at && strcmp((*at)->name, name))
        at = &(*at)->next;
    return at;
}

enum err attachments_create(struct store *store, size_t most, struct attachments **out)
{
    struct attachments *a = calloc(1, sizeof *a);
    *out = NULL;
    if (!a || uv_mutex_init(&a->lock)) {
        free(a);
        return ERR_NO_MEMORY;
    }
    a->store = store;
    a->most = most;
    *out = a;
    return ERR_OK;
}

void attachments_destroy(struct attachments **out)
{
    struct attachments *a = *out;
    if (!a)
        return;
    for (int i = 0; i < BUCKETS; i++)
        for (struct attachment *at = a->bucket[i], *next; at; at = next) {
            next = at->next;
            blob_unref(&at->file);
            free(at);
        }
    uv_mutex_destroy(&a->lock);
    free(a);
    *out = NULL;
}

void attachments_set_most(struct attachments *a, size_t most)
{
    a->most = most;
}

size_t attachments_bytes(const struct attachments *a)
{
    return a->bytes;
}

static struct attachment *insert(struct attachments *a, const char *name, struct blob *file,
                                 size_t size)
{
    struct attachment *at = calloc(1, sizeof *at), **place = place_of(a, name);
    if (!at)
        return NULL;
    memcpy(at->name, name, ATTACHMENT_NAME);
    at->file = file;
    at->size = size;
    at->refs = 1;
    a->bytes += size;
    // Other threads also read this chain.
    uv_mutex_lock(&a->lock);
    at->next = *place;
    *place = at;
    uv_mutex_unlock(&a->lock);
    return at;
}

enum err attachments_add(struct attachments *a, const char *name, struct blob *file,
                         struct fault *why)
{
    struct attachment *at = *place_of(a, name);
    if (at) {
        at->refs++;
        blob_unref(&file);
        return ERR_OK;
    }
    if (file->size > a->most - (a->bytes < a->most ? a->bytes : a->most)) {
        blob_unref(&file);
        return fault_set(why, ERR_BUSY, "queue",
                         "the input images of all jobs together are too large; try again later");
    }
    if (insert(a, name, file, file->size))
        return ERR_OK;
    blob_unref(&file);
    return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
}

enum err attachments_adopt(struct attachments *a, const char *name)
{
    struct attachment *at = *place_of(a, name);
    size_t size = 0;
    if (at) {
        at->refs++;
        return ERR_OK;
    }
    if (holds_files(a) && !a->store->shared)
        size = a->store->ops->file_size(a->store, name);
    return insert(a, name, NULL, size) ? ERR_OK : ERR_NO_MEMORY;
}

static bool is_wanted(void *ctx, const char *name)
{
    return *place_of(ctx, name);
}

void attachments_sweep(struct attachments *a)
{
    if (holds_files(a) && !a->store->shared)
        a->store->ops->sweep_files(a->store, is_wanted, a);
}

void attachments_release(struct attachments *a, const char *name)
{
    struct attachment **place = name ? place_of(a, name) : NULL, *at = place ? *place : NULL;
    if (!at || --at->refs)
        return;
    uv_mutex_lock(&a->lock);
    *place = at->next;
    uv_mutex_unlock(&a->lock);
    a->bytes -= at->size;
    if (holds_files(a) && !a->store->shared)
        a->store->ops->remove_file(a->store, at->name);
    blob_unref(&at->file);
    free(at);
}

// Returns a new reference to bytes in memory; NULL: on disk, or missing.
static struct blob *in_memory(struct attachments *a, const char *name)
{
    uv_mutex_lock(&a->lock);
    const struct attachment *at = *place_of(a, name);
    struct blob *file = at && at->file ? blob_ref(at->file) : NULL;
    uv_mutex_unlock(&a->lock);
    return file;
}

enum err attachments_put(struct attachments *a, const char *name, struct fault *why)
{
    struct blob *file = holds_files(a) ? in_memory(a, name) : NULL, *dropped = NULL;
    if (!file)
        return ERR_OK;
    const enum err err = a->store->ops->put_file(a->store, name, file, why);
    uv_mutex_lock(&a->lock);
    struct attachment *at = *place_of(a, name);
    if (!err && at) {
        dropped = at->file;
        at->file = NULL;
    }
    uv_mutex_unlock(&a->lock);
    blob_unref(&dropped);
    blob_unref(&file);
    return err;
}

enum err attachments_get(struct attachments *a, const char *name, struct blob **out,
                         struct fault *why)
{
    *out = in_memory(a, name);
    if (*out)
        return ERR_OK;
    if (holds_files(a))
        return a->store->ops->get_file(a->store, name, out, why);
    return fault_set(why, ERR_NOT_FOUND, "image", "the input image of this job is lost");
}

enum err attachments_open(struct attachments *a, const struct job_spec *spec,
                          struct picture_edit **out, struct fault *why)
{
    struct job_input in = spec->input;
    struct blob *image = NULL, *mask = NULL;
    enum err err = ERR_OK;
    *out = NULL;
    if (!in.image)
        return ERR_OK;
    err = attachments_get(a, in.image, &image, why);
    if (!err && in.mask)
        err = attachments_get(a, in.mask, &mask, why);
    if (!err)
        err = job_input_decode(&in, &spec->request, image, mask, out, why);
    blob_unref(&image);
    blob_unref(&mask);
    return err;
}
