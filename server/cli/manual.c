// `imagend manual`: the manual pages in the man macro language, from the tables of commands and
// options. Called by main, and by the build for `meson install`.
#include "cli.h"
#include "conf.h"
#include "program.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

// Escapes text for roff. A hyphen becomes a minus sign, so that options can be copied.
static void write_text(struct buf *out, const char *text)
{
    for (const char *s = text; *s; s++) {
        if (*s == '\\')
            buf_puts(out, "\\e");
        else if (*s == '-')
            buf_puts(out, "\\-");
        else if (*s == '~')
            buf_puts(out, "\\(ti");
        else if (*s == '^')
            buf_puts(out, "\\(ha");
        else if (*s == '"')
            buf_puts(out, "\\(dq");
        else if (*s == '\'')
            buf_puts(out, "\\(aq");
        else if ((s == text || s[-1] == '\n') && *s == '.')
            buf_puts(out, "\\&.");
        else
            buf_putc(out, *s);
    }
}

static void write_line(struct buf *out, const char *text)
{
    write_text(out, text);
    buf_puts(out, "\n");
}

static void write_title(struct buf *out, const char *name, const char *section, const char *book)
{
    buf_printf(
        out, ".\\\" Printed by imagend manual.\n.TH %s %s \"\" \"imagend %s\" \"%s\"\n.nh\n.ad l\n",
        name, section, program_version, book);
}

// Writes a list item: the literal part in bold, the placeholder in italics.
static void write_term(struct buf *out, const char *typed, const char *stands)
{
    buf_puts(out, ".TP\n\\fB");
    write_text(out, typed);
    buf_puts(out, "\\fR");
    if (stands) {
        buf_puts(out, " \\fI");
        write_text(out, stands);
        buf_puts(out, "\\fR");
    }
    buf_puts(out, "\n");
}

// "generate PROMPT [options]": the command in bold.
static void write_synopsis(struct buf *out, const char *text)
{
    const int n = (int)strcspn(text, " ");

    buf_printf(out, "\\fBimagend %.*s\\fR", n, text);
    write_line(out, text + n);
}

static void write_rows(struct buf *out, const char *const rows[][2])
{
    for (int i = 0; rows[i][0]; i++) {
        write_term(out, rows[i][0], NULL);
        write_line(out, rows[i][1]);
    }
}

static void write_options(struct buf *out, const struct cli_about *about)
{
    char typed[80];

    for (const struct cli_option *o = about->words; o && o->name; o++) {
        write_term(out, o->name, o->value);
        write_line(out, o->help);
    }
    for (const struct cli_option *o = about->options; o && o->name; o++) {
        char letter[] = {'-', o->letter, ',', ' ', 0};
        snprintf(typed, sizeof typed, "%s--%s", o->letter ? letter : "", o->name);
        write_term(out, typed, o->value);
        write_line(out, o->help);
    }
}

static void write_command(struct buf *out, const struct cli_about *about)
{
    buf_printf(out, ".SS %s\n", about->name);
    for (int i = 0; about->synopsis[i]; i++) {
        buf_puts(out, i ? ".br\n" : "");
        write_synopsis(out, about->synopsis[i]);
    }
    for (int i = 0; about->text[i]; i++) {
        buf_puts(out, ".PP\n");
        write_line(out, about->text[i]);
    }
    write_options(out, about);
    if (about->conf)
        buf_puts(out, ".PP\nThe options of the service, \\fB\\-\\-\\fINAME VALUE\\fR, are those of "
                      "\\fBimagend.conf\\fR(5), and \\fB\\-\\-config\\fR \\fIFILE\\fR.\n");
}

static const char *const environment[][2] = {
    {"IMAGEND_MODEL", "The default model, for every command."},
    {"IMAGEND_NAME",
     "An option of the service, in capitals and with _ for -: IMAGEND_QUEUE_LIMIT=32 "
     "sets queue-limit."},
    {"XDG_CACHE_HOME", "The folder that holds imagend/, compiled pipelines (default ~/.cache)."},
    {"XDG_STATE_HOME",
     "The folder that holds imagend/, the service's jobs and results (default ~/.local/state)."},
    {"VK_DRIVER_FILES", "The Vulkan loader's list of driver manifests: selects a driver."},
    {NULL},
};

static const char *const exit_status[][2] = {
    {"0", "Success."},
    {"1", "The command failed: one sentence on standard error says why."},
    {"2", "The command line or the configuration is wrong."},
    {NULL},
};

static const char *const examples[][2] = {
    {"imagend generate \"a red sphere on a wooden table\" -o sphere.png", "Generate an image."},
    {"imagend generate \"a blue cube\" --size 256 --n 4 --seed 7",
     "Generate four images of 256x256."},
    {"imagend serve --listen 127.0.0.1:8080", "Serve the default model to this machine."},
    {"imagend config check --config /etc/imagend/imagend.conf", "Validate a configuration."},
    {NULL},
};

static void write_imagend_1(struct buf *out)
{
    write_title(out, "IMAGEND", "1", "User Commands");
    buf_puts(out, ".SH NAME\nimagend \\- text\\-to\\-image generation with Vulkan\n.SH SYNOPSIS\n");
    for (const struct cli_command *c = cli_commands; c->about; c++) {
        for (int i = 0; c->about->synopsis[i]; i++) {
            buf_puts(out, c == cli_commands && !i ? "" : ".br\n");
            write_synopsis(out, c->about->synopsis[i]);
        }
    }
    buf_puts(out, ".br\n\\fBimagend \\-\\-version\\fR\n.SH DESCRIPTION\n");
    write_line(out,
               "imagend generates images from text with cascaded diffusion models: a text encoder, "
               "a base model for 64x64 pixels and super-resolution models up to 1024x1024. It "
               "runs on any Vulkan device, a software driver included, and comes with a small "
               "default model; DeepFloyd IF checkpoints in diffusers format load unmodified.");
    buf_puts(out, ".SH COMMANDS\n");
    for (const struct cli_command *c = cli_commands; c->about; c++)
        write_command(out, c->about);
    buf_puts(out, ".SH EXIT STATUS\n");
    write_rows(out, exit_status);
    buf_puts(out, ".SH ENVIRONMENT\n");
    write_rows(out, environment);
    buf_puts(out, ".SH EXAMPLES\n");
    write_rows(out, examples);
    buf_puts(out, ".SH SEE ALSO\n\\fBimagend.conf\\fR(5)\n");
}

static void write_conf_option(struct buf *out, const struct conf_about *o)
{
    char environment_name[64];
    struct buf value = {0};
    size_t n = 0;

    for (int i = 0; o->choices && o->choices[i]; i++)
        buf_printf(&value, "%s%s", i ? "|" : "", o->choices[i]);
    buf_printf(&value, "%s", o->choices ? "" : o->value);
    buf_puts(out, ".TP\n\\fB");
    write_text(out, o->name);
    buf_puts(out, "\\fR = \\fI");
    write_text(out, value.data ? value.data : "");
    buf_puts(out, "\\fR\n");
    buf_putc(out, (char)toupper((unsigned char)o->help[0]));
    write_text(out, o->help + 1);
    buf_puts(out, ".\n");
    if (*o->def) {
        buf_puts(out, "Default: ");
        write_text(out, o->def);
        buf_puts(out, ".\n");
    }
    if (o->reload)
        buf_puts(out, "Reread on SIGHUP.\n");
    for (const char *s = o->name; *s && n < sizeof environment_name - 1; s++)
        environment_name[n++] = *s == '-' ? '_' : (char)toupper((unsigned char)*s);
    environment_name[n] = 0;
    buf_printf(out, ".br\nEnvironment: IMAGEND_%s\n", environment_name);
    buf_deinit(&value);
}

static void write_imagend_conf_5(struct buf *out)
{
    struct conf_about o;

    write_title(out, "IMAGEND.CONF", "5", "File Formats");
    buf_puts(out, ".SH NAME\nimagend.conf \\- configuration of the imagend HTTP service\n"
                  ".SH DESCRIPTION\n");
    write_line(
        out,
        "The file that \"imagend serve --config FILE\" reads. Each line is \"name = value\"; "
        "empty lines and lines that begin with # are ignored, and no option may be set "
        "twice. Times are in seconds, sizes in bytes; sizes accept the suffixes K, M, G and T, "
        "powers of 1024. Lists are separated by commas.");
    buf_puts(out, ".PP\n");
    write_line(out,
               "An environment variable overrides the file, and a flag on the command line (--name "
               "value) overrides both. \"imagend config check\" validates a configuration.");
    buf_puts(out, ".SH OPTIONS\n");
    for (int i = 0; conf_about(i, &o); i++)
        if (o.in_file)
            write_conf_option(out, &o);
    buf_puts(out, ".SH SEE ALSO\n\\fBimagend\\fR(1)\n");
}

int cli_manual(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*write)(struct buf *out);
    } pages[] = {{"imagend.1", write_imagend_1}, {"imagend.conf.5", write_imagend_conf_5}};
    const char *name = argc == 1 ? argv[0] : "";
    struct buf out = {0};

    if (!strcmp(name, "--help") || !strcmp(name, "-h"))
        return CLI_HELP;
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        if (!strcmp(pages[i].name, name))
            pages[i].write(&out);
    if (!out.len || out.failed) {
        fputs("imagend: manual takes imagend.1 or imagend.conf.5\n", stderr);
        buf_deinit(&out);
        return 2;
    }
    fputs(out.data, stdout);
    buf_deinit(&out);
    return 0;
}
