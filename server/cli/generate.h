// `imagend generate` and `imagend upscale`: their arguments (generate_options.c), the input image
// (input.c) and the generation (generate.c). Thread: one.
#ifndef IMAGEND_GENERATE_H
#define IMAGEND_GENERATE_H

#include "cli.h"
#include "engine.h"
#include "picture_edit.h"

struct generate_options {
    struct engine_params engine;
    struct picture_request request;
    struct cli_prompts prompts;
    struct cli_output output;
    const char *prompts_file;
    const char *image, *mask;  // files; NULL: none
    struct picture_edit *edit; // the decoded files, once read
    int pictures;
    const char *trace;   // file; NULL: none
    char lora[4096];     // all values of --lora
    char choices[16384]; // of --lora-choices
    bool counted, quiet, no_provenance;
};

enum { GENERATE_PROCEED = -2 };

extern const char cli_help_lora[], cli_help_choices[], cli_legal_lora[];

// Prints one sentence to standard error; returns the exit status for wrong usage.
int generate_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

// Reads a number of bytes such as 800M or 12G.
bool generate_read_bytes(const char *text, size_t *out);
// Appends a value of --lora or --lora-choices to the list for the engine. False: it is empty, or
// there is no room.
bool generate_add_lora(const char *value, char *list, size_t n);
// Returns an exit status, CLI_HELP or GENERATE_PROCEED. Owner: the caller frees o->prompts in any
// case.
int generate_parse(int argc, char **argv, struct generate_options *o);
int generate_parse_upscale(int argc, char **argv, struct generate_options *o);
// Reads the input image and its mask, if any, into o->edit and the request. Errors: INVALID (not an
// image, or a mask that does not fit), NOT_FOUND, IO, NO_MEMORY, with *why filled. Owner: the
// caller destroys o->edit, also on error.
enum err generate_read_input(struct generate_options *o, struct fault *why);

#endif
