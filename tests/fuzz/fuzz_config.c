// Any text as each of the config files.
#include "fuzz.h"
#include "hfconfig.h"
#include "json.h"

static void check_blocks(const struct unet_config *c)
{
    FUZZ_REQUIRE(c->levels >= 1 && c->levels <= UNET_MAX_LEVELS);
    for (int i = 0; i < c->levels; i++) {
        FUZZ_REQUIRE(c->down[i].layers >= 1 && c->up[i].layers <= UNET_MAX_LAYERS);
        FUZZ_REQUIRE(!c->down[i].attention ||
                     c->down[i].heads * c->down[i].head_dim == c->down[i].out);
        FUZZ_REQUIRE(c->up[i].out % c->norm_groups == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = data ? (const char *)data : "";
    struct hfconfig_index index;
    struct t5_config t5;
    struct clip_config clip;
    struct unet_config unet;
    struct vae_config vae;
    struct scheduler_config scheduler;
    struct json_t *doc;
    struct fault why = {0};
    char shown[40];

    if (json_parse(text, size, "request", ERR_INVALID, &doc, &why) == ERR_OK)
        json_show(doc, shown, sizeof shown);
    json_destroy(&doc);
    if (hfconfig_index_parse(text, size, "f", &index, &why) != ERR_OK)
        FUZZ_REQUIRE(why.msg[0]);
    if (hfconfig_t5_parse(text, size, "f", &t5, &why) == ERR_OK)
        FUZZ_REQUIRE(t5.d_model > 0 && t5.num_layers > 0);
    if (hfconfig_clip_parse(text, size, "f", &clip, &why) == ERR_OK)
        FUZZ_REQUIRE(clip.heads > 0 && clip.width % clip.heads == 0);
    if (hfconfig_unet_parse(text, size, "f", &unet, &why) == ERR_OK)
        check_blocks(&unet);
    if (hfconfig_vae_parse(text, size, "f", &vae, &why) == ERR_OK)
        FUZZ_REQUIRE(vae.levels > 0 && vae.channels[vae.levels - 1] % vae.norm_groups == 0);
    if (hfconfig_scheduler_parse(text, size, "f", &scheduler, &why) == ERR_OK)
        FUZZ_REQUIRE(scheduler.cls <= SCHEDULER_DPM_MULTISTEP);
    return 0;
}
