// Counter-based random numbers: an image's noise depends only on its seed and on where the noise is
// used. The shader philox.glsl computes the same values; this is the host version, for tests and
// for tensors that are never on the device. Thread: any; there is no state.
#ifndef IMAGEND_RNG_H
#define IMAGEND_RNG_H

#include <stddef.h>
#include <stdint.h>

// Identifies where a normal is used: the upper three words of the counter.
struct rng_place {
    uint64_t seed;
    uint32_t step, stage, picture;
};

// Philox4x32-10. Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
void rng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

// The standard normal of one element. Key (seed low, seed high), counter (element / 4, step, stage,
// image); the four words form two Box-Muller pairs, in order, and element % 4 selects one value.
float rng_normal(const struct rng_place *place, uint32_t element);

// z[i] = rng_normal(place, first + i), i < count.
void rng_normals(const struct rng_place *place, uint32_t first, size_t count, float *z);

#endif
