// cascade.json: the meaning of its stages and presets, and that every error is refused by name.
#include "cascade.h"
#include "model_folder.h"
#include "request.h"
#include "test.h"

#include <limits.h>
#include <stdlib.h>

static const char *golden;

static enum err read(const char *json, struct cascade *c, struct fault *why)
{
    model_folder_write("cascade.json", json, strlen(json));
    return cascade_read(&(struct cascade_files){.model = model_folder(golden)}, c, why);
}

#define STAGES                                                                                     \
    "\"stages\":[{\"path\":\"base\",\"sampler\":\"dpm++2m\",\"steps\":20,\"guidance_scale\":3.5}," \
    "{\"path\":\"sr\",\"noise_level\":100}]"

static void check_stages(struct cascade *c)
{
    struct fault why = {0};
    int preset = -1;

    CHECK_MSG(!read("{\"name\":\"tiny\",\"license\":\"MIT\",\"_note\":1," STAGES "}", c, &why),
              "%s", why.msg);
    CHECK_STR(c->name, "tiny");
    CHECK(c->stages == 2 && c->networks == 2 && c->presets == 1);
    CHECK(c->size[0] == 16 && c->size[1] == 64);
    const struct cascade_settings *s = c->preset[0].stage;
    CHECK_STR(s[0].sampler, "dpm++2m");
    CHECK(s[0].network == 0 && s[0].steps == 20 && s[0].guidance_scale == 3.5F);
    CHECK(s[0].noise_level == -1);
    CHECK(s[0].guidance_interval[0] == 0 && s[0].guidance_interval[1] == INT_MAX);
    CHECK(s[1].network == 1 && s[1].steps == 50 && s[1].guidance_scale == 4);
    CHECK_INT(s[1].noise_level, 100);
    CHECK_STR(s[1].sampler, "");
    CHECK_STR(cascade_sampler_name(c, &s[1]), "ddpm");
    CHECK_INT(cascade_preset_find(c, NULL, &preset, &why), ERR_OK);
    CHECK_INT(preset, 0);
    CHECK_INT(cascade_preset_find(c, "fast", &preset, &why), ERR_INVALID);
    CHECK_STR(why.param, "preset");
    CHECK(strstr(why.msg, "this model has none") != NULL);
}

static void check_presets(struct cascade *c)
{
    struct fault why = {0};
    int preset;

    CHECK_MSG(!read("{" STAGES ",\"presets\":{"
                    "\"fast\":{\"stages\":[{\"path\":\"base-fast\",\"steps\":6,"
                    "\"guidance_scale\":1},{\"steps\":2,\"noise_level\":0,"
                    "\"guidance_interval\":[200,700]}]},"
                    "\"faster\":{\"stages\":[{\"path\":\"base-fast\",\"sampler\":\"dpm++3m\","
                    "\"steps\":4},{}]},"
                    "\"listed\":{\"stages\":[{\"timesteps\":[900,500,1]},"
                    "{\"timesteps\":[999]}]},"
                    "\"plain.0\":{\"stages\":[{\"path\":\"base\"},{}]}}}",
                    c, &why),
              "%s", why.msg);
    CHECK(c->presets == 5 && c->networks == 3);
    CHECK_STR(c->network[2].name, "base-fast");
    CHECK_INT(c->network[2].stage, 0);
    CHECK_INT(c->network[2].scheduler.cls, SCHEDULER_DDIM);
    CHECK(strstr(c->text[0].dir, "/base/") != NULL);
    CHECK_INT(cascade_preset_find(c, "fast", &preset, &why), ERR_OK);
    const struct cascade_settings *s = c->preset[preset].stage;
    CHECK(s[0].network == 2 && s[0].steps == 6 && s[0].guidance_scale == 1);
    CHECK_STR(cascade_sampler_name(c, &s[0]), "ddim"); // its own scheduler's, not the stage's
    CHECK(s[1].network == 1 && s[1].steps == 2 && s[1].guidance_scale == 4);
    CHECK_INT(s[1].noise_level, 0);
    CHECK(s[1].guidance_interval[0] == 200 && s[1].guidance_interval[1] == 700);
    CHECK_INT(cascade_preset_find(c, "faster", &preset, &why), ERR_OK);
    s = c->preset[preset].stage;
    CHECK(s[0].network == 2 && s[0].steps == 4 && s[0].guidance_scale == 3.5F);
    CHECK_STR(s[0].sampler, "dpm++3m");
    CHECK(s[1].steps == 50 && s[1].noise_level == 100);
    CHECK_INT(cascade_preset_find(c, "listed", &preset, &why), ERR_OK);
    s = c->preset[preset].stage;
    CHECK(s[0].steps == 3 && s[0].timestep_count == 3 && s[1].steps == 1);
    CHECK(s[0].timesteps[0] == 900 && s[0].timesteps[1] == 500 && s[0].timesteps[2] == 1);
    CHECK_INT(cascade_preset_find(c, "plain.0", &preset, &why), ERR_OK);
    CHECK(!memcmp(c->preset[preset].stage, c->preset[0].stage, sizeof c->preset[0].stage));
    CHECK_INT(cascade_preset_find(c, "", &preset, &why), ERR_INVALID);
    CHECK_INT(cascade_preset_find(c, "slow", &preset, &why), ERR_INVALID);
    CHECK(strstr(why.msg, "fast, faster, listed, plain.0") != NULL);
}

// A preset's steps replace the stage's list, and its list replaces the stage's steps.
static void check_lists(struct cascade *c)
{
    struct fault why = {0};

    CHECK_MSG(!read("{\"stages\":[{\"path\":\"base\",\"timesteps\":[900,500]},{\"path\":\"sr\"}],"
                    "\"presets\":{\"a\":{\"stages\":[{\"steps\":2},{}]},"
                    "\"b\":{\"stages\":[{},{}]},"
                    "\"c\":{\"stages\":[{\"timesteps\":[7]},{}]}}}",
                    c, &why),
              "%s", why.msg);
    CHECK(c->preset[0].stage[0].timestep_count == 2 && c->preset[0].stage[0].steps == 2);
    CHECK(c->preset[1].stage[0].timestep_count == 0 && c->preset[1].stage[0].steps == 2);
    CHECK(c->preset[2].stage[0].timestep_count == 2 && c->preset[2].stage[0].timesteps[1] == 500);
    CHECK(c->preset[3].stage[0].timestep_count == 1 && c->preset[3].stage[0].timesteps[0] == 7);
}

// Folders without a cascade.json have what DeepFloyd's authors recommend.
static void check_folders(struct cascade *c)
{
    char model[600];
    struct fault why = {0};

    snprintf(model, sizeof model, "%s/if-tiny-I,%s/if-tiny-II", golden, golden);
    CHECK_MSG(!cascade_read(&(struct cascade_files){.model = model}, c, &why), "%s", why.msg);
    const struct cascade_settings *s = c->preset[0].stage;
    CHECK_STR(c->name, "if-tiny-I");
    CHECK(c->stages == 2 && c->presets == 1 && c->size[0] == 16 && c->size[1] == 64);
    CHECK(s[0].steps == 100 && s[0].guidance_scale == 7 && s[0].noise_level == -1);
    CHECK(s[1].steps == 50 && s[1].guidance_scale == 4 && s[1].noise_level == 250);
    CHECK(!s[0].sampler[0] && !s[0].timestep_count);
    CHECK(s[0].guidance_interval[0] == 0 && s[0].guidance_interval[1] == INT_MAX);
    CHECK_INT(cascade_read(&(struct cascade_files){.model = ","}, c, &why), ERR_INVALID);
}

#define PRESET(stages) "{" STAGES ",\"presets\":{\"fast\":{\"stages\":" stages "}}}"
#define BASE(stage) PRESET("[{" stage "},{}]")

static void check_refusals(struct cascade *c)
{
    static const struct {
        const char *json;
        enum err code;
        const char *param; // NULL: the name of a file
    } bad[] = {
        {"[]", ERR_FORMAT, NULL},
        {"{}", ERR_FORMAT, "stages"},
        {"{\"stages\":[]}", ERR_FORMAT, "stages"},
        {"{\"stages\":[{}]}", ERR_FORMAT, "path"},
        {"{\"stages\":[{\"path\":1}]}", ERR_FORMAT, "path"},
        {"{\"stages\":[{\"path\":\"none\"}]}", ERR_NOT_FOUND, NULL},
        {"{\"stages\":[{\"path\":\"sr\"}]}", ERR_UNSUPPORTED, "model"},
        {"{\"stages\":[{\"path\":\"base-fast\"}]}", ERR_NOT_FOUND, "model"},
        {"{\"stages\":[{\"path\":\"base\"},{\"path\":\"base\"}]}", ERR_UNSUPPORTED, "model"},
        {"{\"stages\":[{\"path\":\"base\",\"size\":64},{\"path\":\"sr\"}]}", ERR_UNSUPPORTED,
         "size"},
        {"{\"stages\":[{\"path\":\"base\",\"step\":3}]}", ERR_UNSUPPORTED, "step"},
        {"{\"stages\":[{\"path\":\"base\",\"noise_level\":3}]}", ERR_FORMAT, "noise_level"},
        {"{\"stages\":[{\"path\":\"base\",\"sampler\":\"euler\"}]}", ERR_FORMAT, "sampler"},
        {"{" STAGES ",\"speed\":1}", ERR_UNSUPPORTED, "speed"},
        {"{" STAGES ",\"kept_pixels\":\"noisy\"}", ERR_FORMAT, "kept_pixels"},
        {"{" STAGES ",\"kept_pixels\":1}", ERR_FORMAT, "kept_pixels"},
        {"{" STAGES ",\"presets\":null}", ERR_FORMAT, "presets"},
        {"{" STAGES ",\"presets\":[]}", ERR_FORMAT, "presets"},
        {"{" STAGES ",\"presets\":{\"fast\":1}}", ERR_FORMAT, NULL},
        {"{" STAGES ",\"presets\":{\"\":{\"stages\":[{},{}]}}}", ERR_FORMAT, "presets"},
        {"{" STAGES ",\"presets\":{\"a b\":{\"stages\":[{},{}]}}}", ERR_FORMAT, "presets"},
        {"{" STAGES ",\"presets\":{\"a23456789b123456789c123456789d12\":{\"stages\":[{},{}]}}}",
         ERR_FORMAT, "presets"},
        {"{" STAGES ",\"presets\":{\"fast\":{}}}", ERR_FORMAT, "stages"},
        {"{" STAGES ",\"presets\":{\"fast\":{\"stages\":[{},{}],\"steps\":4}}}", ERR_UNSUPPORTED,
         "steps"},
        {PRESET("[{}]"), ERR_FORMAT, "stages"},
        {PRESET("[{},{},{}]"), ERR_FORMAT, "stages"},
        {PRESET("[{},2]"), ERR_FORMAT, NULL},
        {PRESET("[{},{\"noise_level\":-1}]"), ERR_FORMAT, "noise_level"},
        {PRESET("[{},{\"path\":\"sr-large\"}]"), ERR_UNSUPPORTED, "sample_size"},
        {PRESET("[{},{\"path\":\"base-fast\"}]"), ERR_UNSUPPORTED, "model"},
        {BASE("\"size\":16"), ERR_UNSUPPORTED, "size"},
        {BASE("\"steps\":0"), ERR_FORMAT, "steps"},
        {BASE("\"steps\":1001"), ERR_FORMAT, "steps"},
        {BASE("\"steps\":\"few\""), ERR_FORMAT, "steps"},
        {BASE("\"timesteps\":[900,500],\"steps\":2"), ERR_FORMAT, "timesteps"},
        {BASE("\"timesteps\":[]"), ERR_FORMAT, "timesteps"},
        {BASE("\"timesteps\":5"), ERR_FORMAT, "timesteps"},
        {BASE("\"timesteps\":[500,900]"), ERR_FORMAT, "timesteps"},
        {BASE("\"timesteps\":[1000]"), ERR_FORMAT, "timesteps"},
        {BASE("\"timesteps\":[-1]"), ERR_FORMAT, "timesteps"},
        {BASE("\"timesteps\":[3.5]"), ERR_FORMAT, "timesteps"},
        {BASE("\"guidance_scale\":0.5"), ERR_FORMAT, "guidance_scale"},
        {BASE("\"guidance_interval\":[1]"), ERR_FORMAT, "guidance_interval"},
        {BASE("\"guidance_interval\":[-1,5]"), ERR_FORMAT, "guidance_interval"},
        {BASE("\"guidance_interval\":[6,5]"), ERR_FORMAT, "guidance_interval"},
        {BASE("\"guidance_interval\":\"all\""), ERR_FORMAT, "guidance_interval"},
        {BASE("\"noise_level\":5"), ERR_FORMAT, "noise_level"},
        {BASE("\"sampler\":\"euler\""), ERR_FORMAT, "sampler"},
        {BASE("\"sampler\":\"a name that no sampler can have, so long\""), ERR_FORMAT, "sampler"},
        {BASE("\"path\":\"none\""), ERR_NOT_FOUND, NULL},
        {BASE("\"path\":\"sr\""), ERR_UNSUPPORTED, "model"},
        {BASE("\"path\":\"wide\""), ERR_UNSUPPORTED, "in_channels"},
        {BASE("\"path\":\"other-text\""), ERR_UNSUPPORTED, "encoder_hid_dim"},
        {BASE("\"path\":\"labelled\""), ERR_UNSUPPORTED, "num_class_embeds"},
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct fault why = {0};
        const enum err e = read(bad[i].json, c, &why);
        CHECK_MSG(e == bad[i].code, "%s gave %s: %s", bad[i].json, err_name(e), why.msg);
        if (bad[i].param)
            CHECK_MSG(!strcmp(why.param, bad[i].param), "%s names %s", bad[i].json, why.param);
        CHECK(why.msg[0]);
    }
}

static void check_many(struct cascade *c)
{
    char json[1024] = "{" STAGES ",\"presets\":{", *end = json + strlen(json);
    struct fault why = {0};

    for (int i = 1; i <= CASCADE_MAX_PRESETS; i++) {
        end += sprintf(end, "%s\"p%d\":{\"stages\":[{},{}]}", i > 1 ? "," : "", i);
        if (i < CASCADE_MAX_PRESETS - 1)
            continue;
        strcpy(end, "}}");
        const bool fits = i == CASCADE_MAX_PRESETS - 1;
        CHECK_INT(read(json, c, &why), fits ? ERR_OK : ERR_UNSUPPORTED);
    }
    CHECK_STR(why.param, "presets");
}

// base-fast with a U-Net config that is another in one place.
static void add_variant(const char *name, const char *from, const char *to)
{
    static const char *const files[] = {"model_index.json", "scheduler/scheduler_config.json"};
    char path[64];

    snprintf(path, sizeof path, "%s/unet/config.json", name);
    model_folder_edit(path, "if-tiny-I/unet/config.json", from, to);
    for (int i = 0; i < 2; i++) {
        char golden_file[64];
        snprintf(path, sizeof path, "%s/%s", name, files[i]);
        snprintf(golden_file, sizeof golden_file, "if-tiny-I/%s", files[i]);
        model_folder_edit(path, golden_file, "", "");
    }
}

// The vocabulary of the folder decides whether a prompt gets a warning.
static void check_vocabulary(struct cascade *c)
{
    static const char words[] = "{\"format\":1,\"nouns\":[{\"name\":\"cat\",\"words\":[\"cat\"]}]}";
    struct resolved what;
    struct fault why = {0};

    model_folder_write("vocabulary.json", words, strlen(words));
    CHECK_INT(read("{" STAGES "}", c, &why), ERR_OK);
    CHECK_INT(request_resolve(c, &(struct picture_request){.prompt = "a dog"}, &what, &why),
              ERR_OK);
    CHECK_STR(what.used.nearest, "cat");
    CHECK_INT(request_resolve(c, &(struct picture_request){.prompt = "a cat"}, &what, &why),
              ERR_OK);
    CHECK_STR(what.used.nearest, "");
    cascade_deinit(c);
    CHECK(!c->vocabulary);
    model_folder_write("vocabulary.json", "{}", 2);
    CHECK_INT(read("{" STAGES "}", c, &why), ERR_UNSUPPORTED);
    CHECK_MSG(strstr(why.msg, "vocabulary.json"), "%s", why.msg);
    cascade_deinit(c);
}

int main(int argc, char **argv)
{
    struct cascade *c = malloc(sizeof *c);

    golden = argc > 1 ? argv[1] : "tests/golden";
    model_folder(golden);
    add_variant("wide", "\"in_channels\": 3", "\"in_channels\": 4");
    add_variant("labelled", "\"num_class_embeds\": null", "\"num_class_embeds\": 9");
    add_variant("other-text", "\"encoder_hid_dim\": 64", "\"encoder_hid_dim\": 32");
    if (c) {
        check_stages(c);
        check_presets(c);
        check_lists(c);
        check_folders(c);
        check_refusals(c);
        check_many(c);
        check_vocabulary(c);
    }
    free(c);
    return test_end();
}
