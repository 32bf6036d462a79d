// `imagend completion`: completion scripts for three shells, from the tables of commands and
// options. Called by main, and by the build for `meson install`.
#include "cli.h"
#include "conf.h"

#include <stdio.h>
#include <string.h>

enum kind { KIND_FLAG, KIND_VALUE, KIND_FILE, KIND_DIR, KIND_CHOICE };

// An option in the form that completion needs, from any table.
struct entry {
    const char *name, *help;
    char letter;
    enum kind kind;
    char choices[100]; // separated by spaces
};

static enum kind kind_of(const char *value)
{
    if (!value)
        return KIND_FLAG;
    if (strchr(value, '|'))
        return KIND_CHOICE;
    return !strcmp(value, "FILE") ? KIND_FILE : !strcmp(value, "DIR") ? KIND_DIR : KIND_VALUE;
}

static void conf_entry(const struct conf_about *o, struct entry *e)
{
    *e = (struct entry){.name = o->name, .help = o->help};
    e->kind = o->flag ? KIND_FLAG : o->choices ? KIND_CHOICE : kind_of(o->value);
    snprintf(e->choices, sizeof e->choices, "%s",
             e->kind == KIND_CHOICE && o->value ? o->value : "");
    for (int i = 0; o->choices && o->choices[i]; i++) {
        const size_t n = strlen(e->choices);
        snprintf(e->choices + n, sizeof e->choices - n, "%s%s", i ? "|" : "", o->choices[i]);
    }
}

// The i-th option of a command: its own, --help, then the service's. False after the last.
static bool entry_at(const struct cli_about *about, int i, struct entry *e)
{
    struct conf_about conf;
    int own = 0;

    while (about->options && about->options[own].name)
        own++;
    if (i < own) {
        const struct cli_option *o = &about->options[i];
        *e = (struct entry){
            .name = o->name, .help = o->help, .letter = o->letter, .kind = kind_of(o->value)};
        snprintf(e->choices, sizeof e->choices, "%s", e->kind == KIND_CHOICE ? o->value : "");
    } else if (i == own) {
        *e = (struct entry){.name = "help", .help = "print this help", .letter = 'h'};
    } else if (about->conf && conf_about(i - own - 1, &conf)) {
        conf_entry(&conf, e);
    } else {
        return false;
    }
    for (char *s = e->choices; *s; s++)
        if (*s == '|')
            *s = ' ';
    return true;
}

static bool takes_commands(const struct cli_about *about)
{
    return about->argument && !strcmp(about->argument, "COMMAND");
}

static bool takes_file(const struct cli_about *about)
{
    return !strcmp(about->argument, "FILE");
}

static void write_names(struct buf *out)
{
    for (const struct cli_command *c = cli_commands; c->about; c++)
        buf_printf(out, "%s%s", c == cli_commands ? "" : " ", c->about->name);
}

// Writes s for single quotes, with a backslash before each character in special.
static void write_quoted(struct buf *out, const char *s, const char *special)
{
    for (; *s; s++) {
        if (*s == '\'')
            buf_puts(out, "'\\''");
        else if (strchr(special, *s))
            buf_printf(out, "\\%c", *s);
        else
            buf_putc(out, *s);
    }
}

// ---- Bash --------------------------------------------------------------------------------------

static void write_bash_value(struct buf *out, const char *command, const struct entry *e)
{
    buf_printf(out, "    %s:--%s", command, e->name);
    if (e->letter)
        buf_printf(out, " | %s:-%c", command, e->letter);
    buf_puts(out, ")\n");
    if (e->kind == KIND_CHOICE)
        buf_printf(out, "        COMPREPLY=($(compgen -W '%s' -- \"$cur\"))\n", e->choices);
    else if (e->kind != KIND_VALUE)
        buf_printf(out, "        _imagend_path %s\n", e->kind == KIND_DIR ? "-d" : "-f");
    buf_puts(out, "        return\n        ;;\n");
}

static void write_bash_words(struct buf *out, const struct cli_about *about)
{
    struct entry e;

    buf_printf(out, "    %s)\n", about->name);
    if (about->words || takes_commands(about)) {
        buf_puts(out, "        [ \"$COMP_CWORD\" != 2 ] || words='");
        for (const struct cli_option *o = about->words; o && o->name; o++)
            buf_printf(out, "%s ", o->name);
        if (takes_commands(about))
            write_names(out);
        buf_puts(out, "'\n");
    }
    if (about->argument && !takes_commands(about))
        buf_printf(
            out,
            "        case $cur in\n        -*) ;;\n        *)\n            _imagend_path -%c\n"
            "            return\n            ;;\n        esac\n",
            takes_file(about) ? 'f' : 'd');
    buf_puts(out, "        words+='");
    for (int i = 0; entry_at(about, i, &e); i++)
        buf_printf(out, " --%s", e.name);
    buf_puts(out, "'\n        ;;\n");
}

static void write_bash(struct buf *out)
{
    struct entry e;

    buf_puts(out, "# Completion of imagend for Bash; printed by imagend completion bash.\n"
                  "_imagend_path()\n{\n    compopt -o filenames 2>/dev/null\n"
                  "    mapfile -t COMPREPLY < <(compgen \"$1\" -- \"$cur\")\n}\n\n"
                  "_imagend()\n{\n    local cur=${COMP_WORDS[COMP_CWORD]} "
                  "prev=${COMP_WORDS[COMP_CWORD - 1]} words=\n    COMPREPLY=()\n"
                  "    # --name=value is three words to Bash.\n"
                  "    [ \"$cur\" != = ] || cur=\n"
                  "    [ \"$prev\" != = ] || prev=${COMP_WORDS[COMP_CWORD - 2]}\n"
                  "    if [ \"${COMP_WORDS[COMP_CWORD]}\" = = ]; then\n"
                  "        prev=${COMP_WORDS[COMP_CWORD - 1]}\n    fi\n"
                  "    if [ \"$COMP_CWORD\" = 1 ]; then\n        COMPREPLY=($(compgen -W '");
    write_names(out);
    buf_puts(out, " --help --version' -- \"$cur\"))\n        return\n    fi\n"
                  "    case ${COMP_WORDS[1]}:$prev in\n");
    for (const struct cli_command *c = cli_commands; c->about; c++)
        for (int i = 0; entry_at(c->about, i, &e); i++)
            if (e.kind != KIND_FLAG)
                write_bash_value(out, c->about->name, &e);
    buf_puts(out, "    esac\n    case ${COMP_WORDS[1]} in\n");
    for (const struct cli_command *c = cli_commands; c->about; c++)
        write_bash_words(out, c->about);
    buf_puts(out, "    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
                  "complete -F _imagend imagend\n");
}

// ---- Zsh ---------------------------------------------------------------------------------------

static void write_zsh_option(struct buf *out, const struct entry *e)
{
    buf_puts(out, " \\\n            ");
    if (e->letter)
        buf_printf(out, "'(-%c --%s)'{-%c,--%s}'[", e->letter, e->name, e->letter, e->name);
    else
        buf_printf(out, "'--%s[", e->name);
    write_quoted(out, e->help, "[]:\\");
    buf_puts(out, "]");
    if (e->kind != KIND_FLAG)
        buf_printf(out, ":%s:", e->name);
    if (e->kind == KIND_CHOICE)
        buf_printf(out, "(%s)", e->choices);
    else if (e->kind != KIND_FLAG && e->kind != KIND_VALUE)
        buf_puts(out, e->kind == KIND_DIR ? "_files -/" : "_files");
    buf_puts(out, "'");
}

static void write_zsh_command(struct buf *out, const struct cli_about *about)
{
    struct entry e;

    buf_printf(out, "        %s)\n            _arguments", about->name);
    for (int i = 0; entry_at(about, i, &e); i++)
        write_zsh_option(out, &e);
    if (about->words) {
        buf_puts(out, " \\\n            '1:word:((");
        for (const struct cli_option *o = about->words; o->name; o++) {
            buf_printf(out, "%s%s\\:\"", o == about->words ? "" : " ", o->name);
            write_quoted(out, o->help, "\"():\\");
            buf_puts(out, "\"");
        }
        buf_puts(out, "))'");
    }
    if (takes_commands(about))
        buf_puts(out, " \\\n            '1:command:_imagend_commands'");
    else if (about->argument)
        buf_puts(out, takes_file(about) ? " \\\n            '1:image:_files'"
                                        : " \\\n            '1:model:_files -/'");
    buf_puts(out, "\n            ;;\n");
}

static void write_zsh(struct buf *out)
{
    buf_puts(
        out,
        "#compdef imagend\n# Completion of imagend for Zsh; printed by imagend completion zsh.\n"
        "compdef _imagend imagend\n\n_imagend_commands() {\n    local -a commands=(\n");
    for (const struct cli_command *c = cli_commands; c->about; c++) {
        buf_printf(out, "        '%s:", c->about->name);
        write_quoted(out, c->about->summary, ":\\");
        buf_puts(out, "'\n");
    }
    buf_puts(out, "    )\n    _describe command commands\n}\n\n_imagend() {\n"
                  "    local curcontext=$curcontext state line\n"
                  "    _arguments -C '(- *)'{-h,--help}'[list the commands]' "
                  "'(- *)--version[print the version]' \\\n"
                  "        '1:command:_imagend_commands' '*::argument:->argument' && return\n"
                  "    if [[ $state = argument ]]; then\n        case $line[1] in\n");
    for (const struct cli_command *c = cli_commands; c->about; c++)
        write_zsh_command(out, c->about);
    buf_puts(out, "        esac\n    fi\n}\n\nif [[ $funcstack[1] = _imagend ]]; then\n"
                  "    _imagend \"$@\"\nfi\n");
}

// ---- fish --------------------------------------------------------------------------------------

static void write_fish_option(struct buf *out, const char *command, const struct entry *e)
{
    buf_printf(out, "complete -c imagend -n '__fish_seen_subcommand_from %s' -l %s", command,
               e->name);
    if (e->letter)
        buf_printf(out, " -s %c", e->letter);
    switch (e->kind) {
    case KIND_FLAG: break;
    case KIND_VALUE: buf_puts(out, " -x"); break;
    case KIND_FILE: buf_puts(out, " -r -F"); break;
    case KIND_DIR: buf_puts(out, " -x -a '(__fish_complete_directories)'"); break;
    case KIND_CHOICE: buf_printf(out, " -x -a '%s'", e->choices); break;
    }
    buf_puts(out, " -d '");
    write_quoted(out, e->help, "\\");
    buf_puts(out, "'\n");
}

static void write_fish_command(struct buf *out, const struct cli_about *about)
{
    struct entry e;

    for (const struct cli_option *o = about->words; o && o->name; o++) {
        buf_printf(out, "complete -c imagend -n '__fish_seen_subcommand_from %s' -a '%s' -d '",
                   about->name, o->name);
        write_quoted(out, o->help, "\\");
        buf_puts(out, "'\n");
    }
    if (about->argument) {
        buf_printf(out, "complete -c imagend -n '__fish_seen_subcommand_from %s' -a '",
                   about->name);
        if (takes_commands(about))
            write_names(out);
        else
            buf_puts(out, takes_file(about) ? "(__fish_complete_path)"
                                            : "(__fish_complete_directories)");
        buf_puts(out, "'\n");
    }
    for (int i = 0; entry_at(about, i, &e); i++)
        write_fish_option(out, about->name, &e);
}

static void write_fish(struct buf *out)
{
    buf_puts(out,
             "# Completion of imagend for fish; printed by imagend completion fish.\n"
             "complete -c imagend -f\n"
             "complete -c imagend -n __fish_use_subcommand -l version -d 'print the version'\n"
             "complete -c imagend -n __fish_use_subcommand -l help -s h -d 'list the commands'\n");
    for (const struct cli_command *c = cli_commands; c->about; c++) {
        buf_printf(out, "complete -c imagend -n __fish_use_subcommand -a %s -d '", c->about->name);
        write_quoted(out, c->about->summary, "\\");
        buf_puts(out, "'\n");
    }
    for (const struct cli_command *c = cli_commands; c->about; c++)
        write_fish_command(out, c->about);
}

int cli_completion(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*write)(struct buf *out);
    } shells[] = {{"bash", write_bash}, {"zsh", write_zsh}, {"fish", write_fish}};
    const char *name = argc == 1 ? argv[0] : "";
    struct buf out = {0};

    if (!strcmp(name, "--help") || !strcmp(name, "-h"))
        return CLI_HELP;
    for (size_t i = 0; i < sizeof shells / sizeof *shells; i++)
        if (!strcmp(shells[i].name, name))
            shells[i].write(&out);
    if (!out.len || out.failed) {
        fputs("imagend: completion takes bash, zsh or fish\n", stderr);
        buf_deinit(&out);
        return 2;
    }
    fputs(out.data, stdout);
    buf_deinit(&out);
    return 0;
}
