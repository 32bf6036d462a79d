// Philox4x32-10 and Box-Muller on the host. Called by tests and by code that needs noise without a
// device; must match the shader's convention, which rng.h states.
#include "rng.h"

#include <math.h>

void rng_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

// Four normals from four words: u in (0, 1] gives the radius, u' in [0, 1) the angle in turns.
static void box_muller(const uint32_t u[4], float z[4])
{
    for (int i = 0; i < 4; i += 2) {
        double radius = sqrt(-2.0 * log(((double)u[i] + 1.0) * 0x1p-32));
        double angle = 2.0 * M_PI * ((double)u[i + 1] * 0x1p-32);
        z[i] = (float)(radius * cos(angle));
        z[i + 1] = (float)(radius * sin(angle));
    }
}

static void quad(const struct rng_place *p, uint32_t index, float z[4])
{
    const uint32_t counter[4] = {index, p->step, p->stage, p->picture};
    const uint32_t key[2] = {(uint32_t)p->seed, (uint32_t)(p->seed >> 32)};
    uint32_t u[4];
    rng_philox(counter, key, u);
    box_muller(u, z);
}

float rng_normal(const struct rng_place *place, uint32_t element)
{
    float z[4];
    quad(place, element / 4, z);
    return z[element % 4];
}

void rng_normals(const struct rng_place *place, uint32_t first, size_t count, float *z)
{
    float four[4];
    for (size_t i = 0; i < count; i++) {
        uint32_t element = first + (uint32_t)i;
        if (i == 0 || element % 4 == 0)
            quad(place, element / 4, four);
        z[i] = four[element % 4];
    }
}
