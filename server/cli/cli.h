// The commands of the program, and the tables that describe them: parsing, --help, manual pages and
// shell completion all come from these. Thread: one.
#ifndef IMAGEND_CLI_H
#define IMAGEND_CLI_H

#include "buf.h"
#include "codec.h"

// An option of a command (name without "--"), or one of its words (value: its own arguments).
struct cli_option {
    const char *name;
    char letter;       // of the short form; 0: none
    const char *value; // what stands for the value, as in FILE, DIR or a|b; NULL: takes none
    const char *help;
    const char *field; // of picture_table, that the value is for; NULL: none
    const char *legal; // what the value may be, for the error that says so
};

// What a command is, for people. Lists end with a NULL, a {0} or both.
struct cli_about {
    const char *name;
    const char *summary;              // one line
    const char *const *synopsis;      // each after "imagend "
    const char *const *text;          // paragraphs
    const struct cli_option *words;   // NULL: takes none
    const struct cli_option *options; // NULL: has none but --help
    const char *argument; // DIR, FILE or COMMAND: what the shells complete; NULL: nothing
    bool conf;            // takes the options of the service too (conf.h)
};

// run takes the arguments after the name and returns the exit status: 0, 1 (failed) or 2 (wrong
// usage) with one sentence on stderr; or CLI_HELP, for main to print the command's help.
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
// The next option of the arguments after a command's name: its index in about's options with the
// value in optarg, or CLI_HELP, CLI_END (optind is the first word), CLI_WRONG (a sentence was
// printed). optind must be 0 before the first call.
int cli_next_option(int argc, char **argv, const struct cli_about *about);

// The list of commands, and one command's help.
void cli_write_usage(struct buf *out);
void cli_write_help(struct buf *out, const struct cli_about *about);
// Refuse a command that does not exist: one sentence that suggests the nearest. Returns 2.
int cli_unknown(const char *name);

// ---- prompts and images (prompts.c, output.c) --------------------------------------------------

// A file of prompts, one per line; blank lines hold none but count. line[i] points into text and is
// NULL for a blank line.
struct cli_prompts {
    struct buf text;
    char **line;
    int count;
};

// path "-" is standard input. Errors: NOT_FOUND, IO, FORMAT (larger than 64 MB), INVALID,
// NO_MEMORY, with *why filled.
// Owner: *p begins as zeros and is given to cli_prompts_deinit whatever comes back.
enum err cli_prompts_read(struct cli_prompts *p, const char *path, struct fault *why);
void cli_prompts_deinit(struct cli_prompts *p);

struct cli_output {
    const char *path; // "-": standard output
    bool many;        // FILE becomes FILE-1, FILE-2, ...
    // set by cli_output_check
    bool standard;
    enum codec_format format; // by the extension of path
    unsigned mode;            // permissions of new files
};

// Whether images can be written there. Errors: INVALID, NOT_FOUND, IO with *why filled.
enum err cli_output_check(struct cli_output *o, struct fault *why);
// The file of the image with this index, which counts from 0.
void cli_output_name(const struct cli_output *o, int index, char *out, size_t n);
// Errors: IO with *why filled; a file that was there stays as it was.
enum err cli_output_write(const struct cli_output *o, const char *path, const void *data,
                          size_t size, struct fault *why);

#endif
