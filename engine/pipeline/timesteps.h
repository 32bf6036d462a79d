// Named lists of timesteps from DeepFloyd IF.
#ifndef IMAGEND_TIMESTEPS_H
#define IMAGEND_TIMESTEPS_H

enum { TIMESTEPS_PRESET_RANGE = 1000, TIMESTEPS_PRESET_MAX = 200 };

// Writes the list's timesteps, decreasing, and returns their number; 0 for an unknown name. Shape:
// out [TIMESTEPS_PRESET_MAX]. Source: deepfloyd_if/model/respace.py.
int timesteps_preset(const char *name, int *out);

// NULL-terminated.
const char *const *timesteps_preset_names(void);

#endif
