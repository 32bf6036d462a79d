// The models of the process, for the loop thread: their names, what is known about them, and which
// requests they accept. A single model is asked through its engine, once that is open; several have
// plans, because most of them are not loaded.
#include "jobs_impl.h"

#include "buf.h"
#include "engine.h"
#include "log.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

struct jobs_plan {
    struct engine_plan *plan; // NULL: see why
    struct model_info info;
    struct fault why;
};

enum err jobs_models_open(struct jobs *j, struct fault *why)
{
    j->plan = calloc((size_t)j->p.models, sizeof *j->plan);
    if (!j->plan)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    for (int i = 0; j->p.models > 1 && i < j->p.models; i++) {
        struct jobs_plan *p = &j->plan[i];
        if (engine_plan_open(&j->p.engine[i], &p->plan, &p->why)) {
            log_msg(LOG_ERROR, "jobs", "the model \"%s\" cannot be loaded: %s", j->p.engine[i].name,
                    p->why.msg);
            fault_hide_paths(&p->why); // clients see this
        } else {
            engine_plan_info(p->plan, &p->info);
        }
    }
    return ERR_OK;
}

void jobs_models_close(struct jobs *j)
{
    for (int i = 0; j->plan && i < j->p.models; i++)
        engine_plan_close(&j->plan[i].plan);
    free(j->plan);
}

int jobs_models(const struct jobs *j)
{
    return j->p.models;
}

// A model as any device knows it; NULL: none does.
static const struct model_info *info_of(const struct jobs *j, int index)
{
    for (int i = 0; i < j->workers; i++)
        if (worker_model(j->worker[i], index))
            return worker_model(j->worker[i], index);
    return j->plan[index].plan ? &j->plan[index].info : NULL;
}

static const char *name_of(const struct jobs *j, int index)
{
    const struct model_info *m = info_of(j, index);
    return j->p.engine[index].name ? j->p.engine[index].name : m ? m->name : NULL;
}

struct jobs_model jobs_model_at(const struct jobs *j, int index)
{
    struct jobs_model m = {
        .name = name_of(j, index),
        .info = info_of(j, index),
        .why = j->plan[index].why,
    };
    m.state = m.why.code ? MODEL_FAILED : MODEL_UNLOADED;
    for (int i = 0; i < j->workers && !m.why.code; i++) {
        const struct worker_state s = worker_state(j->worker[i], index);
        if (s.model == MODEL_LOADED || m.state == MODEL_UNLOADED ||
            (s.model == MODEL_LOADING && m.state == MODEL_FAILED))
            m.state = s.model;
        if (s.model == MODEL_LOADED)
            return m;
    }
    for (int i = 0; i < j->workers && m.state == MODEL_FAILED && !m.why.code; i++) {
        m.why = worker_state(j->worker[i], index).why;
        fault_hide_paths(&m.why);
    }
    return m;
}

int jobs_model_find(const struct jobs *j, const char *name)
{
    if (!name || !*name)
        return 0;
    for (int i = 0; i < j->p.models; i++) {
        const char *own = name_of(j, i);
        if (own && !strcmp(own, name))
            return i;
    }
    return -1;
}

const struct model_info *jobs_model(const struct jobs *j, const char *name)
{
    const int index = jobs_model_find(j, name);
    return index < 0 ? NULL : info_of(j, index);
}

char *jobs_model_names(const struct jobs *j)
{
    struct buf b = {0};
    const char *comma = "";
    buf_puts(&b, "[");
    for (int i = 0; i < j->p.models; i++) {
        const char *name = name_of(j, i);
        if (j->p.models > 1 && !j->plan[i].plan)
            continue; // its jobs would fail here
        if (!i) {
            buf_puts(&b, "\"\"");
            comma = ",";
        }
        if (name) {
            buf_puts(&b, comma);
            text_json(&b, name);
            comma = ",";
        }
    }
    buf_puts(&b, "]");
    return buf_take(&b);
}

const char *jobs_model_state_name(enum worker_model_state s)
{
    static const char *const names[] = {"unloaded", "loading", "loaded", "failed"};
    return names[s];
}

enum err jobs_check_model(const struct engine_params *p, struct fault *why)
{
    struct engine_plan *plan = NULL;
    const enum err err = engine_plan_open(p, &plan, why);
    engine_plan_close(&plan);
    return err;
}

enum err jobs_resolve(struct jobs *j, struct worker *w, const struct job_spec *spec,
                      struct picture_used *used, struct fault *why)
{
    const int index = jobs_model_find(j, spec->model);
    if (index < 0)
        return fault_set(why, ERR_NOT_FOUND, "model", "the model \"%.80s\" does not exist",
                         spec->model);
    if (j->p.models == 1)
        return worker_check(w, spec, used, why);
    const struct jobs_plan *p = &j->plan[index];
    if (!p->plan)
        return fault_set(why, ERR_BUSY, "server", "the model \"%s\" cannot be loaded: %s",
                         j->p.engine[index].name, p->why.msg);
    return engine_plan_resolve(p->plan, &spec->request, used, why);
}
