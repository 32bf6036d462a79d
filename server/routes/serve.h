// `imagend serve` and `imagend config`: the program's two server commands.
#ifndef IMAGEND_SERVE_H
#define IMAGEND_SERVE_H

// Both take the arguments after the command's name and return the exit status, or SERVE_HELP when
// --help is among them, for the caller to print.
enum { SERVE_HELP = -1 };
int serve_command(int argc, char **argv);
int config_command(int argc, char **argv);

#endif
