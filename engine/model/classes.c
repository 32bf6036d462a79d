// The registry of the networks' classes, see classes.h.
#include "classes.h"

#include "decoder.h"
#include "denoiser.h"
#include "text_encoder.h"

#include <string.h>

enum { MOST = 4 };

// In the order of enum class_kind. The names are those of the classes.
static const struct {
    const char *key; // in model_index.json
    const void *cls[MOST];
    const char *name[MOST + 1];
} kinds[] = {
    {"text_encoder", {&t5_encoder, &clip_encoder}, {"T5EncoderModel", "CLIPTextModel"}},
    {"unet", {&unet_denoiser}, {"UNet2DConditionModel"}},
    {"vae", {&vae_decoder}, {"AutoencoderKL"}},
};

const void *class_find(enum class_kind kind, const char *name)
{
    for (int i = 0; kinds[kind].name[i]; i++)
        if (!strcmp(kinds[kind].name[i], name))
            return kinds[kind].cls[i];
    return NULL;
}

const char *const *class_names(enum class_kind kind)
{
    return kinds[kind].name;
}

enum err class_unknown(enum class_kind kind, const char *name, struct fault *why)
{
    return fault_set(why, ERR_UNSUPPORTED, kinds[kind].key, "%s \"%.60s\" is not supported",
                     kinds[kind].key, name);
}
