// Shared by the files of the OpenAI API. Loop thread.
#ifndef IMAGEND_OPENAI_H
#define IMAGEND_OPENAI_H

#include "app.h"

void openai_models_list(struct call *c);
void openai_models_get(struct call *c);
// Whether a model name selects the loaded model: its own name, an alias from model-aliases, or one
// of OpenAI's names, with or without a date or "openai/" prefix. NULL and "" also select it.
bool openai_model_known(struct app *app, const char *name);
// Whether OpenAI's default response format for this model is a URL.
bool openai_model_gives_urls(const char *name);

#endif
