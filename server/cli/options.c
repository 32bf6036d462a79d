// Parses the options of the commands with getopt_long, from the tables of cli.h. Called by the
// commands. Errors name the wrong option, not its neighbor.
#include "cli.h"
#include "text.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_OPTIONS = 48, FIRST = 256, HELP = FIRST + MOST_OPTIONS };

struct spelling {
    struct option longs[MOST_OPTIONS + 2];
    char shorts[3 * MOST_OPTIONS + 4];
};

static void spell(const struct cli_option *options, struct spelling *s)
{
    char *at = s->shorts;
    int n = 0;

    memset(s, 0, sizeof *s);
    *at++ = ':'; // getopt returns ':' for a missing value
    for (; options && options[n].name && n < MOST_OPTIONS; n++) {
        const struct cli_option *o = &options[n];
        s->longs[n] = (struct option){
            .name = o->name,
            .has_arg = o->value ? required_argument : no_argument,
            .val = FIRST + n,
        };
        if (o->letter)
            at += sprintf(at, "%c%s", o->letter, o->value ? ":" : "");
    }
    s->longs[n] = (struct option){.name = "help", .has_arg = no_argument, .val = HELP};
    *at = 'h';
}

static int by_letter(const struct cli_option *options, int letter)
{
    for (int i = 0; options && options[i].name; i++)
        if (options[i].letter == letter)
            return i;
    return CLI_WRONG;
}

// The option to suggest; NULL if none is near or several match.
static const char *nearest(const struct option *longs, const char *name)
{
    const char *best = NULL;

    for (int i = 0; longs[i].name; i++)
        best = text_nearer(name, longs[i].name, best);
    return best;
}

// Writes the options that begin with `name`, as "--a or --b" or "--a, --b or --c".
static void ambiguous_option(const struct spelling *s, const char *name, int begins)
{
    fprintf(stderr, "imagend: option --%s is ambiguous; use ", name);
    for (int i = 0; s->longs[i].name; i++)
        if (!strncmp(s->longs[i].name, name, strlen(name))) {
            begins--;
            fprintf(stderr, "--%s%s", s->longs[i].name,
                    begins > 1    ? ", "
                    : begins == 1 ? " or "
                                  : "\n");
        }
}

static void unknown_option(const struct spelling *s, const char *given, const char *command)
{
    char name[64];
    const char *meant;
    int begins = 0;

    snprintf(name, sizeof name, "%.*s", (int)strcspn(given + 2, "="), given + 2);
    for (int i = 0; s->longs[i].name; i++)
        begins += !strncmp(s->longs[i].name, name, strlen(name));
    meant = nearest(s->longs, name);
    if (begins > 1)
        ambiguous_option(s, name, begins);
    else if (meant)
        fprintf(stderr, "imagend: unknown option --%s; did you mean --%s?\n", name, meant);
    else
        fprintf(stderr, "imagend: unknown option --%s; see imagend %s --help\n", name, command);
}

// given: the word that getopt read last. optopt is 0 for an unknown long option, the letter of a
// short option, or the code of a known option whose value is missing or not allowed.
static int wrong(const struct spelling *s, const char *given, int result, const char *command)
{
    char name[64];

    if (!optopt) {
        unknown_option(s, given, command);
        return CLI_WRONG;
    }
    if (optopt == HELP)
        snprintf(name, sizeof name, "--help");
    else if (optopt >= FIRST)
        snprintf(name, sizeof name, "--%s", s->longs[optopt - FIRST].name);
    else
        snprintf(name, sizeof name, "-%c", optopt);
    if (result == ':')
        fprintf(stderr, "imagend: option %s needs a value; see imagend %s --help\n", name, command);
    else if (optopt >= FIRST)
        fprintf(stderr, "imagend: option %s takes no value\n", name);
    else
        fprintf(stderr, "imagend: unknown option %s; see imagend %s --help\n", name, command);
    return CLI_WRONG;
}

int cli_next_option(int argc, char **argv, const struct cli_about *about)
{
    struct spelling s;
    int option;

    spell(about->options, &s);
    opterr = 0;
    // getopt expects a program name first: the word before the arguments.
    option = getopt_long(argc + 1, argv - 1, s.shorts, s.longs, NULL);
    if (option == -1) {
        optind--;
        return CLI_END;
    }
    if (option == '?' || option == ':')
        return wrong(&s, argv[optind - 2], option, about->name);
    if (option == 'h' || option == HELP)
        return CLI_HELP;
    return option >= FIRST ? option - FIRST : by_letter(about->options, option);
}
