// The program's commands and the tables that describe them; argument parsing, --help, manual pages
// and shell completion are all derived from these. Thread: one.
#ifndef IMAGEND_CLI_H
#define IMAGEND_CLI_H

#include "buf.h"
#include "codec.h"

// An option of a command (name without "--"), or one of its subcommands (value: its arguments).
struct cli_option {
    const char *name;
    char letter;       // short form; 0: none
    const char *value; // placeholder of the value, such as FILE, DIR or a|b; NULL: takes none
    const char *help;
    const char *field; // the field of picture_table that it sets; NULL: none
    const char *legal; // legal values, for the error message
};

// The description of a command for users. Lists end with NULL or {0}.
struct cli_about {
    const char *name;
    const char *summary;              // one line
    const char *const *synopsis;      // each without the leading "imagend "
    const char *const *text;          // paragraphs
    const struct cli_option *words;   // subcommands; NULL: none
    const struct cli_option *options; // NULL: none except --help
    const char *argument;             // DIR, FILE or COMMAND, for shell completion; NULL: none
    bool conf;                        // also takes the options of the service (conf.h)
};

// run receives the arguments after the command's name and returns the exit status: 0, 1 (failed) or
// 2 (wrong usage, with one sentence on stderr), or CLI_HELP to make main print the command's help.
struct cli_command {
    const struct cli_about *about;
    int (*run)(int argc, char **argv);
};
enum { CLI_HELP = -1 };

// main.c's table of all commands; ends with {0}.
extern const struct cli_command cli_commands[];

extern const struct cli_about cli_about_generate, cli_about_upscale, cli_about_serve,
    cli_about_config, cli_about_devices, cli_about_inspect, cli_about_completion, cli_about_manual,
    cli_about_help;

int cli_generate(int argc, char **argv);
int cli_upscale(int argc, char **argv);
int cli_inspect(int argc, char **argv);
int cli_devices(int argc, char **argv);
int cli_completion(int argc, char **argv);
int cli_manual(int argc, char **argv);
int cli_help(int argc, char **argv);

// ---- arguments and help (options.c, help.c) -----------------------------------------------------

enum { CLI_END = -2, CLI_WRONG = -3 };
// Reads the next option: returns its index in about->options, with the value in optarg, or
// CLI_HELP, CLI_END (optind is the first word), CLI_WRONG (a sentence was printed). optind must be
// 0 before the first call.
int cli_next_option(int argc, char **argv, const struct cli_about *about);

// Write the list of commands, and the help of one command.
void cli_write_usage(struct buf *out);
void cli_write_help(struct buf *out, const struct cli_about *about);
// Refuses an unknown command with one sentence that suggests the nearest. Returns 2.
int cli_unknown(const char *name);

// ---- prompts and images (prompts.c, output.c) --------------------------------------------------

// A file of prompts, one per line. Blank lines count but contain no prompt. line[i] points into
// text, or is NULL for a blank line.
struct cli_prompts {
    struct buf text;
    char **line;
    int count;
};

// path "-" is standard input. Errors: NOT_FOUND, IO, FORMAT (larger than 64 MB), INVALID,
// NO_MEMORY, with *why filled. Owner: *p starts zeroed; the caller calls cli_prompts_deinit, also
// on error.
enum err cli_prompts_read(struct cli_prompts *p, const char *path, struct fault *why);
void cli_prompts_deinit(struct cli_prompts *p);

struct cli_output {
    const char *path; // "-": standard output
    bool many;        // FILE becomes FILE-1, FILE-2, ...
    // set by cli_output_check
    bool standard;
    enum codec_format format; // from the extension of path
    unsigned mode;            // permissions of new files
};

// Checks that images can be written there. Errors: INVALID, NOT_FOUND, IO with *why filled.
enum err cli_output_check(struct cli_output *o, struct fault *why);
// The file name of the image with this index, from 0.
void cli_output_name(const struct cli_output *o, int index, char *out, size_t n);
// Errors: IO with *why filled; an existing file is then unchanged.
enum err cli_output_write(const struct cli_output *o, const char *path, const void *data,
                          size_t size, struct fault *why);

#endif
