// The registry of the networks' classes, by their names in model_index.json. Called by the
// interfaces (text_encoder.c, denoiser.c, decoder.c) and by the parser of model_index.json. Thread:
// any.
#ifndef IMAGEND_CLASSES_H
#define IMAGEND_CLASSES_H

#include "err.h"

enum class_kind { CLASS_TEXT_ENCODER, CLASS_DENOISER, CLASS_DECODER };

// The class: a struct text_encoder_class, denoiser_class or decoder_class; NULL: unknown.
const void *class_find(enum class_kind kind, const char *name);
// The names of a kind, NULL-terminated.
const char *const *class_names(enum class_kind kind);
// Sets the fault for a class that class_find does not know. Returns UNSUPPORTED.
enum err class_unknown(enum class_kind kind, const char *name, struct fault *why);

#endif
