// `imagend serve` and `imagend config`: the program's server commands. Thread: main.
#ifndef IMAGEND_SERVE_H
#define IMAGEND_SERVE_H

// Both receive the arguments after the command's name and return the exit status, or SERVE_HELP if
// --help is among them, which makes the caller print the help.
enum { SERVE_HELP = -1 };
int serve_command(int argc, char **argv);
int config_command(int argc, char **argv);

#endif
