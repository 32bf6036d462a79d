// What the files of the OpenAI API share.
#ifndef IMAGEND_OPENAI_H
#define IMAGEND_OPENAI_H

#include "app.h"

void openai_models_list(struct call *c);
void openai_models_get(struct call *c);
// Whether a request for this model is for us: ours, an alias of model-aliases, or one of OpenAI's
// names; each also as a dated version and after "openai/". NULL and "" are ours.
bool openai_model_known(struct app *app, const char *name);
// Whether OpenAI answers with URLs when a request for this model does not say otherwise.
bool openai_model_gives_urls(const char *name);

#endif
