// `imagend serve` and `imagend config`: the program's two server commands.
#ifndef IMAGEND_SERVE_H
#define IMAGEND_SERVE_H

// As main: argv[0] is the command's name; the result is the exit status.
int serve_command(int argc, char **argv);
int config_command(int argc, char **argv);

#endif
