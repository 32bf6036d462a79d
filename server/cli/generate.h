// `imagend generate` in two parts: its arguments (generate_options.c), and drawing (generate.c).
#ifndef IMAGEND_GENERATE_H
#define IMAGEND_GENERATE_H

#include "cli.h"
#include "engine.h"

enum { GENERATE_MOST_OPTIONS = 32 };

struct generate_options {
    struct engine_params engine;
    struct picture_request request;
    struct cli_prompts prompts;
    struct cli_output output;
    const char *prompts_file;
    int pictures;
    int given[GENERATE_MOST_OPTIONS]; // values, by option
    bool counted, quiet;
};

enum { GENERATE_PROCEED = -2 };

// One sentence on standard error; returns the exit status of wrong usage.
int generate_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

// Returns an exit status, CLI_HELP or GENERATE_PROCEED. Owner: o->prompts is the caller's to free,
// whatever comes back.
int generate_parse(int argc, char **argv, struct generate_options *o);
// The values that were given, against the stages that the image goes through. Errors: INVALID.
enum err generate_check_values(const struct generate_options *o, int stages, struct fault *why);

#endif
