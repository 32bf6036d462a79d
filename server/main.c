// The program: one table of commands. Each command is a main of its own.
#include "cli.h"
#include "program.h"
#include "serve.h"

#include <stdio.h>
#include <string.h>

const struct cli_command cli_commands[] = {
    {&cli_about_generate, cli_generate},
    {&cli_about_upscale, cli_upscale},
    {&cli_about_serve, serve_command},
    {&cli_about_config, config_command},
    {&cli_about_devices, cli_devices},
    {&cli_about_inspect, cli_inspect},
    {&cli_about_completion, cli_completion},
    {&cli_about_manual, cli_manual},
    {&cli_about_help, cli_help},
    {0},
};

static void print(struct buf *b, FILE *out)
{
    fputs(b->data ? b->data : "", out);
    buf_deinit(b);
}

static int run(const struct cli_command *c, int argc, char **argv)
{
    struct buf help = {0};
    int status = c->run(argc, argv);

    if (status != CLI_HELP)
        return status;
    cli_write_help(&help, c->about);
    print(&help, stdout);
    return 0;
}

// A full disk or a closed pipe under standard output is a failure too.
static int finish(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fputs("imagend: cannot write to standard output\n", stderr);
    return status ? status : 1;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    struct buf usage = {0};

    // A program that reads what is printed gets each line at once.
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!*name) {
        cli_write_usage(&usage);
        print(&usage, stderr);
        return 2;
    }
    if (!strcmp(name, "--version") || !strcmp(name, "-V")) {
        printf("imagend %s\n", program_version);
        return finish(0);
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h"))
        name = "help";
    for (const struct cli_command *c = cli_commands; c->about; c++)
        if (!strcmp(c->about->name, name))
            return finish(run(c, argc - 2, argv + 2));
    return cli_unknown(name);
}
