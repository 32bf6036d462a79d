// The commands that only inspect: inspect, devices. Called by main.
#include "cli.h"

#include "engine.h"
#include "program.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

enum { INSPECT_VARIANT, INSPECT_ENCODER };

const struct cli_about cli_about_inspect = {
    .name = "inspect",
    .summary = "show what a model folder contains and what is missing",
    .synopsis = (const char *const[]){"inspect [MODEL] [options]", NULL},
    .text = (const char *const[]){"Show the stages, sizes, samplers and memory needs of MODEL, a "
                                  "cascade folder or diffusers "
                                  "pipeline folders separated by commas, and which of its files "
                                  "are missing. Without MODEL, "
                                  "show the default model.",
                                  NULL},
    .options =
        (const struct cli_option[]){
            [INSPECT_VARIANT] = {"variant", 0, "NAME",
                                 "use the weight files of this variant, such as fp16"},
            [INSPECT_ENCODER] = {"text-encoder", 0, "FILE",
                                 "a GGUF file with a T5 encoder to use instead of the model's"},
            {0}},
    .argument = "DIR",
};

const struct cli_about cli_about_devices = {
    .name = "devices",
    .summary = "list the Vulkan devices of this machine",
    .synopsis = (const char *const[]){"devices", NULL},
    .text = (const char *const[]){"List the Vulkan devices of this machine, one per line: the "
                                  "index and the name that --device "
                                  "accepts.",
                                  NULL},
};

int cli_inspect(int argc, char **argv)
{
    struct engine_params p = {0};
    struct fault why = {0};
    char *text = NULL;
    enum err e;
    int option;

    optind = 0;
    while ((option = cli_next_option(argc, argv, &cli_about_inspect)) >= 0)
        *(option == INSPECT_VARIANT ? &p.variant : &p.text_encoder) = optarg;
    if (option != CLI_END)
        return option == CLI_HELP ? CLI_HELP : 2;
    if (argc - optind > 1) {
        fprintf(stderr, "imagend: unexpected argument \"%.100s\"; inspect takes one model\n",
                argv[optind + 1]);
        return 2;
    }
    p.model = argc > optind ? argv[optind] : program_default_model();
    e = engine_inspect(&p, &text, &why);
    if (text)
        fputs(text, stdout);
    free(text);
    if (e)
        fprintf(stderr, "imagend: %s\n", why.msg);
    return e ? 1 : 0;
}

int cli_devices(int argc, char **argv)
{
    struct fault why = {0};
    char *text = NULL;
    int option;

    optind = 0;
    option = cli_next_option(argc, argv, &cli_about_devices);
    if (option != CLI_END)
        return option == CLI_HELP ? CLI_HELP : 2;
    if (optind < argc) {
        fprintf(stderr, "imagend: unexpected argument \"%.100s\"; devices takes none\n",
                argv[optind]);
        return 2;
    }
    if (engine_devices(&text, &why)) {
        fprintf(stderr, "imagend: %s\n", why.msg);
        return 1;
    }
    fputs(text, stdout);
    free(text);
    return 0;
}
