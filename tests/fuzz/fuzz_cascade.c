// Any text as the cascade.json of a folder with valid networks; an accepted cascade must be
// consistent.
#include "cascade.h"
#include "fuzz.h"
#include "model_folder.h"

#include <string.h>

static void check_settings(const struct cascade *c, const struct cascade_settings *s, int stage)
{
    FUZZ_REQUIRE(s->network >= 0 && s->network < c->networks);
    FUZZ_REQUIRE(c->network[s->network].stage == stage);
    FUZZ_REQUIRE(s->steps >= 1 && s->steps <= 1000 && s->guidance_scale >= 1);
    FUZZ_REQUIRE(stage ? s->noise_level >= 0 : s->noise_level == -1);
    FUZZ_REQUIRE(*cascade_sampler_name(c, s));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cascade c;
    const char *folder = model_folder(GOLDEN);
    struct fault why = {0};

    model_folder_write("cascade.json", data, size);
    if (cascade_read(&(struct cascade_files){.model = folder}, &c, &why)) {
        FUZZ_REQUIRE(why.code && why.msg[0]);
        return 0;
    }
    FUZZ_REQUIRE(c.stages >= 1 && c.stages <= CASCADE_MAX_STAGES);
    FUZZ_REQUIRE(c.presets >= 1 && c.presets <= CASCADE_MAX_PRESETS);
    for (int p = 0; p < c.presets; p++) {
        int found;
        for (int i = 0; i < c.stages; i++)
            check_settings(&c, &c.preset[p].stage[i], i);
        FUZZ_REQUIRE(!p ||
                     (!cascade_preset_find(&c, c.preset[p].name, &found, &why) && found == p));
    }
    return 0;
}
