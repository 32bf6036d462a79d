// DeepFloyd IF's named lists of timesteps. Each is a string of counts: the training timesteps are
// divided into that many equal sections, and each section contributes its count of evenly spaced
// points. Called by samplers.c; knows nothing about noise.
#include "timesteps.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *sections;
} presets[] = {
    {"fast27", "10,10,3,2,2"},
    {"smart27", "7,4,2,1,2,4,7"},
    {"smart50", "10,6,4,3,2,2,3,4,6,10"},
    {"smart100", "1,1,1,1,2,2,2,2,2,2,3,3,4,4,5,5,6,7,7,8,9,10,13"},
    {"smart185", "1,1,2,2,2,3,3,3,4,5,6,7,8,9,10,11,12,13,14,15,16,18,20"},
    {"super27", "1,1,1,1,1,1,1,2,5,13"},
    {"super40", "2,2,2,2,2,2,3,4,6,15"},
    {"super100", "4,4,6,6,8,8,10,10,14,30"},
};
enum { PRESETS = sizeof presets / sizeof *presets };

static int expand(const char *sections, int *out)
{
    int parts = 1, n = 0, start = 0, part = 0;
    for (const char *c = sections; *c; c++)
        parts += *c == ',';
    int size = TIMESTEPS_PRESET_RANGE / parts, larger = TIMESTEPS_PRESET_RANGE % parts;
    for (const char *c = sections; part < parts; part++) {
        char *end;
        long points = strtol(c, &end, 10);
        int length = size + (part < larger);
        double stride = points > 1 ? (double)(length - 1) / (double)(points - 1) : 0.0;
        double at = 0.0;
        for (long k = 0; k < points; k++, at += stride)
            out[n++] = start + (int)rint(at);
        start += length;
        c = end + 1;
    }
    for (int i = 0; i < n / 2; i++) {
        int t = out[i];
        out[i] = out[n - 1 - i];
        out[n - 1 - i] = t;
    }
    return n;
}

int timesteps_preset(const char *name, int *out)
{
    for (int i = 0; i < PRESETS; i++)
        if (!strcmp(presets[i].name, name))
            return expand(presets[i].sections, out);
    return 0;
}

const char *const *timesteps_preset_names(void)
{
    static const char *const names[] = {"fast27",  "smart27", "smart50",  "smart100", "smart185",
                                        "super27", "super40", "super100", NULL};
    _Static_assert(sizeof names / sizeof *names == PRESETS + 1, "one name per preset");
    return names;
}
