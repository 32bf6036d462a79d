// The pipelines that recordings have asked for: found by key, created in parallel. Called by the
// recorder and the device. Thread: the engine's worker; the creating threads live inside one call.
#include "ops_internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_THREADS = 8 };

int pipeline_find(struct ops_device *dev, const struct pipeline_key *key)
{
    for (int i = 0; i < dev->pipeline_count; i++) {
        const struct pipeline_key *k = &dev->pipelines[i].key;
        if (k->choice.build == key->choice.build && k->act_f16 == key->act_f16 &&
            k->weight_f16 == key->weight_f16 && k->specs == key->specs &&
            !memcmp(k->spec, key->spec, (size_t)k->specs * sizeof k->spec[0]))
            return i;
    }
    if (dev->pipeline_count == dev->pipeline_room) {
        int room = dev->pipeline_room ? 2 * dev->pipeline_room : 32;
        struct pipeline *p = realloc(dev->pipelines, (size_t)room * sizeof *p);
        if (!p)
            return -1;
        dev->pipelines = p;
        dev->pipeline_room = room;
    }
    dev->pipelines[dev->pipeline_count] = (struct pipeline){.key = *key};
    return dev->pipeline_count++;
}

static enum vk_binding_type binding_type(char letter, const struct pipeline_key *key)
{
    bool f16 = letter == 'm' ? key->weight_f16 : letter == 'x' && key->act_f16;
    if (!kernel_reads_texels(key->choice.build, letter))
        return VK_STORAGE;
    return f16 ? VK_TEXEL_F16 : VK_TEXEL_F32;
}

static enum err create(struct ops_device *dev, struct pipeline *pipe)
{
    const struct pipeline_key *key = &pipe->key;
    const struct kernel *k = key->choice.kernel;
    const struct kernel_build *build = key->choice.build;
    struct vk_pipeline_params p = {
        .name = k->name,
        .spirv = build->words,
        .spirv_bytes = build->bytes,
        .bindings = (int)strlen(k->bindings),
        .push_bytes = k->push_bytes,
        .specs = key->specs,
        .subgroup_size = k->shuffles || k->matrix ? dev->caps->subgroup_size : 0,
    };
    memcpy(p.spec, key->spec, sizeof p.spec);
    for (int i = 0; i < p.bindings; i++)
        p.binding[i] = binding_type(k->bindings[i], key);
    return vk_pipeline_create(dev->vk, &p, &pipe->vk);
}

struct crew {
    struct ops_device *dev;
    pthread_mutex_t lock;
    int next;
    enum err e;
};

static void *work(void *arg)
{
    struct crew *crew = arg;
    for (;;) {
        pthread_mutex_lock(&crew->lock);
        int i = crew->next;
        while (i < crew->dev->pipeline_count && crew->dev->pipelines[i].vk)
            i++;
        crew->next = i + 1;
        pthread_mutex_unlock(&crew->lock);
        if (i >= crew->dev->pipeline_count)
            return NULL;
        enum err e = create(crew->dev, &crew->dev->pipelines[i]);
        if (e) {
            pthread_mutex_lock(&crew->lock);
            crew->e = e;
            pthread_mutex_unlock(&crew->lock);
        }
    }
}

enum err pipelines_create(struct ops_device *dev)
{
    int missing = 0;
    for (int i = 0; i < dev->pipeline_count; i++)
        missing += !dev->pipelines[i].vk;
    if (!missing)
        return ERR_OK;
    struct crew crew = {.dev = dev, .lock = PTHREAD_MUTEX_INITIALIZER};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int want = missing < cpus ? missing : (int)cpus, started = 0;
    pthread_t threads[MAX_THREADS];
    // This thread works too, so a thread that cannot be started costs time only.
    while (started < want - 1 && started < MAX_THREADS &&
           !pthread_create(&threads[started], NULL, work, &crew))
        started++;
    work(&crew);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    return crew.e;
}

void pipelines_destroy(struct ops_device *dev)
{
    for (int i = 0; i < dev->pipeline_count; i++)
        vk_pipeline_destroy(&dev->pipelines[i].vk);
    free(dev->pipelines);
    dev->pipelines = NULL;
    dev->pipeline_count = dev->pipeline_room = 0;
}
