// The file that models-file names: the models of a service that has several, one section each.
//
//   [photo]
//   model = /models/IF-I-XL-v1.0,/models/IF-II-L-v1.0
//   lora = fox.safetensors:0.8
//
//   [draft]
//   model = /models/draft
//
// The keys are options of the service for this model alone. The first section is the default model.
#ifndef IMAGEND_MODELS_FILE_H
#define IMAGEND_MODELS_FILE_H

#include "err.h"

#include <stddef.h>

struct engine_params;

enum { MODELS_MAX = 32, MODELS_NAME = 63 };

enum models_key {
    MODELS_MODEL,
    MODELS_VARIANT,
    MODELS_TEXT_ENCODER,
    MODELS_LORA,
    MODELS_LORA_CHOICES,
    MODELS_DTYPE,
    MODELS_WEIGHTS,
    MODELS_KEYS
};

struct models_entry {
    const char *name;
    const char *value[MODELS_KEYS]; // NULL: not set; MODELS_MODEL is set
};

struct models_file {
    char *text; // what the entries point into
    int n;
    struct models_entry entry[MODELS_MAX];
};

// Errors: INVALID with the number of the line, NO_MEMORY. Owner: the caller calls
// models_file_deinit.
enum err models_file_parse(const char *text, size_t n, struct models_file *out, struct fault *why);
// Errors: as models_file_parse and buf_read_file.
enum err models_file_read(const char *path, struct models_file *out, struct fault *why);
void models_file_deinit(struct models_file *m);
// Sets the fields of p that the entry sets, and its name. Owner: the file's.
void models_entry_apply(const struct models_entry *e, struct engine_params *p);

#endif
