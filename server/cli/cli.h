// The commands of the program that need no server. Each takes the arguments after its name and
// returns the exit status: 0, 1 (failed) or 2 (wrong usage), with one sentence on stderr.
#ifndef IMAGEND_CLI_H
#define IMAGEND_CLI_H

int cli_generate(int argc, char **argv);
int cli_inspect(int argc, char **argv);
int cli_devices(int argc, char **argv);

// The model to take when none is named: $IMAGEND_MODEL, models/default below the working directory,
// beside the program or where it is installed. Never NULL.
const char *cli_default_model(void);

#endif
