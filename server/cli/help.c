// Help for a terminal: `imagend help`, --help, and the usage errors that point to them. Called by
// main and the commands.
#include "cli.h"
#include "conf.h"
#include "program.h"
#include "text.h"

#include <stdio.h>
#include <string.h>

enum { COLUMNS = 80, INDENT = 26 };

// Writes wrapped text; the first line starts in column at, the others in column indent.
static void write_wrapped(struct buf *out, const char *text, int at, int indent)
{
    bool first = true;

    while (*text) {
        const int n = (int)strcspn(text, " ");
        if (!first && at + 1 + n > COLUMNS) {
            buf_printf(out, "\n%*s", indent, "");
            at = indent;
            first = true;
        }
        buf_printf(out, "%s%.*s", first ? "" : " ", n, text);
        at += n + !first;
        first = false;
        text += n;
        text += strspn(text, " ");
    }
    buf_puts(out, "\n");
}

static void write_row(struct buf *out, const char *left, const char *help)
{
    const int n = (int)strlen(left);

    buf_puts(out, left);
    if (n + 2 > INDENT)
        buf_printf(out, "\n%*s", INDENT, "");
    else
        buf_printf(out, "%*s", INDENT - n, "");
    write_wrapped(out, help, INDENT, INDENT);
}

static void write_conf_options(struct buf *out)
{
    struct conf_about o;

    for (int i = 0; conf_about(i, &o); i++) {
        struct buf left = {0}, help = {0};
        buf_printf(&left, "  --%s ", o.name);
        for (int k = 0; o.choices && o.choices[k]; k++)
            buf_printf(&left, "%s%s", k ? "|" : "", o.choices[k]);
        buf_puts(&left, o.value ? o.value : "");
        buf_puts(&help, o.help);
        if (*o.def)
            buf_printf(&help, " [%s]", o.def);
        write_row(out, left.data ? left.data : "", help.data ? help.data : "");
        buf_deinit(&left);
        buf_deinit(&help);
    }
}

static void write_options(struct buf *out, const struct cli_about *about)
{
    char left[100];

    for (const struct cli_option *o = about->words; o && o->name; o++) {
        snprintf(left, sizeof left, "  %s%s%s", o->name, o->value ? " " : "",
                 o->value ? o->value : "");
        write_row(out, left, o->help);
    }
    if (about->words)
        buf_puts(out, "\n");
    for (const struct cli_option *o = about->options; o && o->name; o++) {
        char letter[] = {'-', o->letter, ',', ' ', 0};
        snprintf(left, sizeof left, "  %s--%s%s%s", o->letter ? letter : "", o->name,
                 o->value ? " " : "", o->value ? o->value : "");
        write_row(out, left, o->help);
    }
    write_row(out, "  -h, --help", "print this help");
    if (about->conf) {
        buf_puts(out, "\n");
        write_conf_options(out);
    }
}

void cli_write_help(struct buf *out, const struct cli_about *about)
{
    for (int i = 0; about->synopsis[i]; i++)
        buf_printf(out, "%s imagend %s\n", i ? "      " : "usage:", about->synopsis[i]);
    for (int i = 0; about->text[i]; i++) {
        buf_puts(out, "\n");
        write_wrapped(out, about->text[i], 0, 0);
    }
    buf_puts(out, "\n");
    write_options(out, about);
}

void cli_write_usage(struct buf *out)
{
    buf_printf(out,
               "imagend %s: text-to-image generation with Vulkan\n\nusage: imagend COMMAND "
               "[options]\n\n",
               program_version);
    for (const struct cli_command *c = cli_commands; c->about; c++)
        buf_printf(out, "  %-12s%s\n", c->about->name, c->about->summary);
    buf_puts(
        out,
        "\n\"imagend help COMMAND\" describes a command; \"man imagend\" describes all of them.\n");
}

int cli_unknown(const char *name)
{
    const char *meant = NULL;

    for (const struct cli_command *c = cli_commands; c->about; c++)
        meant = text_nearer(name, c->about->name, meant);
    if (meant)
        fprintf(stderr, "imagend: unknown command \"%.60s\"; did you mean \"%s\"?\n", name, meant);
    else
        fprintf(stderr, "imagend: unknown command \"%.60s\"; \"imagend help\" lists the commands\n",
                name);
    return 2;
}

int cli_help(int argc, char **argv)
{
    struct buf out = {0};
    int status = 0;

    if (argc > 0 && (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h")))
        return CLI_HELP;
    if (argc > 1) {
        fputs("imagend: help takes one command\n", stderr);
        return 2;
    }
    if (argc == 0)
        cli_write_usage(&out);
    for (const struct cli_command *c = cli_commands; argc == 1 && c->about; c++)
        if (!strcmp(c->about->name, argv[0]))
            cli_write_help(&out, c->about);
    if (out.len)
        fputs(out.data, stdout);
    else
        status = argc == 1 ? cli_unknown(argv[0]) : 1;
    buf_deinit(&out);
    return status;
}
