// The program: one table of commands. Each command is a main of its own.
#include "cli.h"
#include "program.h"
#include "serve.h"

#include <stdio.h>
#include <string.h>

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv); // of the arguments after the name
    const char *help;
} commands[] = {
    {"generate", cli_generate, "draw pictures"},
    {"serve", serve_command, "the HTTP service"},
    {"config", config_command, "check and show the service's options, make API keys"},
    {"devices", cli_devices, "the Vulkan devices of this machine"},
    {"inspect", cli_inspect, "what is in a model folder, and what is missing"},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static int usage(FILE *out)
{
    fprintf(out, "imagend %s\nusage: imagend COMMAND [options]\n\n", program_version);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    return out == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i].name, name))
            return commands[i].run(argc - 2, argv + 2);
    if (!strcmp(name, "--help") || !strcmp(name, "help"))
        return usage(stdout);
    if (!strcmp(name, "--version")) {
        printf("imagend %s\n", program_version);
        return 0;
    }
    return usage(stderr);
}
