// The commands of the program that need no server. Each takes the arguments after its name and
// returns the exit status: 0, 1 (failed) or 2 (wrong usage), with one sentence on stderr.
#ifndef IMAGEND_CLI_H
#define IMAGEND_CLI_H

#include "buf.h"

int cli_generate(int argc, char **argv);
int cli_inspect(int argc, char **argv);
int cli_devices(int argc, char **argv);

// A file of prompts: one per line, an empty line is an empty prompt. line[i] points into text.
struct cli_prompts {
    struct buf text;
    char **line;
    int count;
};

// Errors: NOT_FOUND, IO, FORMAT (larger than 64 MB), INVALID, NO_MEMORY, with *why filled.
// Owner: *p begins as zeros and is given to cli_prompts_deinit whatever comes back.
enum err cli_prompts_read(struct cli_prompts *p, const char *path, struct fault *why);
void cli_prompts_deinit(struct cli_prompts *p);

#endif
