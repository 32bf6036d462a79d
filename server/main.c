// The program: a table of commands, each with its own main function.
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

// A failed write to standard output (full disk, closed pipe) fails the command.
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

    // Line-buffered, so that a reading program gets each line immediately.
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
