// `imagend serve` and `imagend config`: the program's two server commands.
#ifndef IMAGEND_SERVE_H
#define IMAGEND_SERVE_H

// Both take the arguments after the command's name and return the exit status.
int serve_command(int argc, char **argv);
int config_command(int argc, char **argv);

#endif
