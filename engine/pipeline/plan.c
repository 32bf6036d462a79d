// engine_plan: checks requests against a model's config files alone. Called by the command line.
#include "engine.h"
#include "request.h"

#include <stdlib.h>
#include <string.h>

struct engine_plan {
    struct cascade cascade;
};

enum err engine_plan_open(const struct engine_params *p, struct engine_plan **out,
                          struct fault *why)
{
    struct engine_plan *plan = malloc(sizeof *plan);
    enum err e = ERR_NO_MEMORY;

    *out = NULL;
    if (!plan)
        return fault_set(why, e, NULL, "%s", err_text(e));
    const struct cascade_files files = cascade_files_of(p);
    e = cascade_read(&files, &plan->cascade, why);
    if (e)
        free(plan);
    else
        *out = plan;
    return e;
}

enum err engine_plan_resolve(const struct engine_plan *p, const struct picture_request *r,
                             struct picture_used *out, struct fault *why)
{
    struct resolved what;
    enum err e = request_check(&p->cascade, r, &what, why);

    if (!e)
        *out = what.used;
    return e;
}

void engine_plan_info(const struct engine_plan *p, struct model_info *out)
{
    memset(out, 0, sizeof *out);
    request_describe(&p->cascade, out);
}

void engine_plan_close(struct engine_plan **p)
{
    if (*p)
        cascade_deinit(&(*p)->cascade);
    free(*p);
    *p = NULL;
}
