// Descriptions of the commands outside this folder and of those that describe the program itself,
// for --help, the manual pages and shell completion. Only data.
#include "cli.h"

const struct cli_about cli_about_serve = {
    .name = "serve",
    .summary = "run the HTTP service",
    .synopsis = (const char *const[]){"serve [options]", NULL},
    .text =
        (const char *const[]){
            "Serve image generation over HTTP: OpenAI's image API, a native job API, the A1111 API "
            "and a "
            "web page. Options come from the file that --config names, from the environment "
            "(IMAGEND_NAME) and from the command line; later sources override earlier ones.",
            "On SIGTERM the service finishes its running jobs and stops. On SIGHUP it rereads the "
            "options that imagend.conf(5) marks as reloadable.",
            NULL},
    .conf = true,
};

const struct cli_about cli_about_config = {
    .name = "config",
    .summary = "check and show the service's options, create API keys",
    .synopsis = (const char *const[]){"config check|show [options]", "config file|table|routes",
                                      "config key NAME [SCOPES [RATE]]", NULL},
    .text =
        (const char *const[]){
            "Check or print the configuration of \"imagend serve\"; the options are the same.",
            NULL},
    .words =
        (const struct cli_option[]){
            {"check", 0, "[options]", "validate the configuration"},
            {"show", 0, "[options]", "print the effective value of every option, as a file"},
            {"file", 0, NULL, "print a configuration file with every option and its default"},
            {"table", 0, NULL, "print the options and metrics as Markdown tables"},
            {"routes", 0, NULL,
             "print the HTTP routes with their scopes, one JSON object per line"},
            {"key", 0, "NAME [SCOPES [RATE]]",
             "create an API key and print it with its line for keys-file; SCOPES are separated by "
             "commas (default generate,read); RATE is a number of requests per second, or with a "
             "burst, such as 5/20 (default no limit)"},
            {0}},
    .conf = true,
};

const struct cli_about cli_about_completion = {
    .name = "completion",
    .summary = "print completion code for a shell",
    .synopsis = (const char *const[]){"completion bash|zsh|fish", NULL},
    .text = (const char *const[]){"Print code that completes imagend's commands and options in a "
                                  "shell. \"meson install\" and "
                                  "the Debian package install it where the shells look for it; "
                                  "otherwise run, for example, "
                                  "eval \"$(imagend completion bash)\".",
                                  NULL},
    .words =
        (const struct cli_option[]){{"bash", 0, NULL, "for Bash"},
                                    {"zsh", 0, NULL, "for Zsh; a file named _imagend in $fpath"},
                                    {"fish", 0, NULL, "for fish"},
                                    {0}},
};

const struct cli_about cli_about_manual = {
    .name = "manual",
    .summary = "print a manual page",
    .synopsis = (const char *const[]){"manual imagend.1|imagend.conf.5", NULL},
    .text = (const char *const[]){"Print a manual page in the man macro language; \"imagend manual "
                                  "imagend.1 | man -l -\" shows "
                                  "it on a system where it is not installed.",
                                  NULL},
    .words = (const struct cli_option[]){{"imagend.1", 0, NULL, "the commands"},
                                         {"imagend.conf.5", 0, NULL, "the service's options"},
                                         {0}},
};

const struct cli_about cli_about_help = {
    .name = "help",
    .summary = "describe a command",
    .synopsis = (const char *const[]){"help [COMMAND]", NULL},
    .text = (const char *const[]){"List the commands, or describe one.", NULL},
    .argument = "COMMAND",
};
