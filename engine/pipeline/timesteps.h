// Lists of timesteps: DeepFloyd IF's named presets.
#ifndef IMAGEND_TIMESTEPS_H
#define IMAGEND_TIMESTEPS_H

enum { TIMESTEPS_PRESET_RANGE = 1000, TIMESTEPS_PRESET_MAX = 200 };

// Write the preset's timesteps, falling, and return how many there are; 0 when there is no such
// name. Shape: out [TIMESTEPS_PRESET_MAX]. Source: deepfloyd_if/model/respace.py.
int timesteps_preset(const char *name, int *out);

// NULL-terminated.
const char *const *timesteps_preset_names(void);

#endif
