// `imagend serve` and `imagend config`: the program's server commands. Thread: main.
#ifndef IMAGEND_SERVE_H
#define IMAGEND_SERVE_H

// Both receive the arguments after the command's name and return the exit status, or SERVE_HELP if
// --help is among them, which makes the caller print the help.
enum { SERVE_HELP = -1 };
int serve_command(int argc, char **argv);
int config_command(int argc, char **argv);

struct conf;
struct engine_params;
struct models_file;
// Fills in the engines of all models: those of models-file, or the one of the option model. Returns
// their number, at most MODELS_MAX. They point into both.
int serve_models(const struct conf *c, const struct models_file *m, struct engine_params *out);

#endif
