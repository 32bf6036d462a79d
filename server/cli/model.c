// The commands that only inspect: inspect, devices. Called by main.
#include "cli.h"

#include "engine.h"
#include "generate.h"
#include "models_file.h"
#include "program.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    INSPECT_VARIANT,
    INSPECT_ENCODER,
    INSPECT_LORA,
    INSPECT_CHOICES,
    INSPECT_MEMORY,
    INSPECT_DTYPE,
    INSPECT_WEIGHTS,
    INSPECT_SLOTS,
    INSPECT_SIZE,
    INSPECT_MODELS
};

const struct cli_about cli_about_inspect = {
    .name = "inspect",
    .summary = "show what a model folder contains and what is missing",
    .synopsis = (const char *const[]){"inspect [MODEL] [options]",
                                      "inspect --models-file FILE [options]", NULL},
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
            [INSPECT_LORA] = {"lora", 0, "FILE[:SCALE]", cli_help_lora},
            [INSPECT_CHOICES] = {"lora-choices", 0, "FILE[:SCALE]", cli_help_choices},
            [INSPECT_MEMORY] = {"memory-limit", 0, "BYTES",
                                "predict what a device with this much memory, such as 8G, would "
                                "keep, release and need, without loading anything"},
            [INSPECT_DTYPE] = {"dtype", 0, "f32|f16", "storage type to predict with"},
            [INSPECT_WEIGHTS] = {"weights", 0, "f32|f16|bf16|q8|q4",
                                 "storage format of the weights to predict with"},
            [INSPECT_SLOTS] = {"slots", 0, "K",
                               "number of images at once to predict for, 1 to 256"},
            [INSPECT_SIZE] = {"size", 0, "N|WxH",
                              "size of the images to predict for (default: the largest square)"},
            [INSPECT_MODELS] = {"models-file", 0, "FILE",
                                "show each model of this file of a service"},
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

// Returns the exit status.
static int inspect_one(const struct engine_params *p)
{
    struct fault why = {0};
    char *text = NULL;
    const enum err e = engine_inspect(p, &text, &why);
    if (text)
        fputs(text, stdout);
    fflush(stdout);
    free(text);
    if (e)
        fprintf(stderr, "imagend: %s%s%s%s\n", p->name ? "[" : "", p->name ? p->name : "",
                p->name ? "]: " : "", why.msg);
    return e ? 1 : 0;
}

// defaults: what the options say, for models that do not say otherwise. Returns the exit status.
static int inspect_models(const char *path, const char *model, const struct engine_params *defaults)
{
    struct models_file file;
    struct fault why = {0};
    int failed = 0;
    if (model || defaults->lora || defaults->lora_choices || defaults->text_encoder)
        return generate_complain("--models-file cannot be combined with %s; its sections name it",
                                 model                    ? "MODEL"
                                 : defaults->text_encoder ? "--text-encoder"
                                                          : "LoRAs");
    if (models_file_read(path, &file, &why)) {
        fprintf(stderr, "imagend: %s\n", why.msg);
        return 2;
    }
    for (int i = 0; i < file.n; i++) {
        struct engine_params p = *defaults;
        models_entry_apply(&file.entry[i], &p);
        printf("%s[%s]\n", i ? "\n" : "", p.name);
        failed += inspect_one(&p);
    }
    models_file_deinit(&file);
    return failed ? 1 : 0;
}

int cli_inspect(int argc, char **argv)
{
    struct engine_params p = {0};
    char loras[4096] = "", choices[16384] = "";
    const char *models = NULL;
    int option;

    optind = 0;
    while ((option = cli_next_option(argc, argv, &cli_about_inspect)) >= 0) {
        const char **const texts[] = {[INSPECT_VARIANT] = &p.variant,
                                      [INSPECT_ENCODER] = &p.text_encoder,
                                      [INSPECT_DTYPE] = &p.dtype,
                                      [INSPECT_WEIGHTS] = &p.weights,
                                      [INSPECT_MODELS] = &models};
        if (option == INSPECT_SLOTS) {
            char *end;
            const long slots = strtol(optarg, &end, 10);
            if (*end || end == optarg || slots < 1 || slots > 256)
                return generate_complain("--slots cannot be \"%.100s\"; use 1 to 256", optarg);
            p.slots = (int)slots;
        } else if (option == INSPECT_LORA || option == INSPECT_CHOICES) {
            const bool all = option == INSPECT_LORA;
            char *list = all ? loras : choices;
            *(all ? &p.lora : &p.lora_choices) = list;
            if (!generate_add_lora(optarg, list, all ? sizeof loras : sizeof choices))
                return generate_complain("--%s cannot be \"%.100s\"; use %s",
                                         cli_about_inspect.options[option].name, optarg,
                                         cli_legal_lora);
        } else if (option == INSPECT_SIZE) {
            struct picture_request r = {.prompt = ""};
            if (check_query(&picture_table, "size", optarg, &r, NULL))
                return generate_complain(
                    "--size cannot be \"%.100s\"; use a number of pixels, such "
                    "as 256, or two like 256x384",
                    optarg);
            p.size = r.size;
        } else if (option != INSPECT_MEMORY)
            *texts[option] = optarg;
        else if (!generate_read_bytes(optarg, &p.memory_limit))
            return generate_complain("--memory-limit cannot be \"%.100s\"; use a number of bytes, "
                                     "such as 800M or 12G",
                                     optarg);
    }
    if (option != CLI_END)
        return option == CLI_HELP ? CLI_HELP : 2;
    if (argc - optind > 1) {
        fprintf(stderr, "imagend: unexpected argument \"%.100s\"; inspect takes one model\n",
                argv[optind + 1]);
        return 2;
    }
    if (models)
        return inspect_models(models, argc > optind ? argv[optind] : NULL, &p);
    p.model = argc > optind ? argv[optind] : program_default_model();
    return inspect_one(&p);
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
