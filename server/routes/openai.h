// What the files of the OpenAI API share.
#ifndef IMAGEND_OPENAI_H
#define IMAGEND_OPENAI_H

#include "app.h"

void openai_models_list(struct call *c);
void openai_models_get(struct call *c);
// Whether a request for this model is for us: ours, or one of OpenAI's names.
bool openai_model_known(struct app *app, const char *name);

#endif
