// Philox compared with the published test vectors; the convention and statistics of the normals.
#include "rng.h"
#include "test.h"

static void known_answers(void)
{
    // Source: the kat_vectors file of Random123, philox 4x32 10.
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t got[4];
        rng_philox(known[i].counter, known[i].key, got);
        for (int j = 0; j < 4; j++)
            CHECK_INT(got[j], known[i].want[j]);
    }
}

// The words of counter 0 and key 0, turned into normals by hand.
static void convention(void)
{
    struct rng_place zero = {0};
    const double turn = 6.283185307179586, scale = 4294967296.0;
    double r0 = sqrt(-2.0 * log((0x6627e8d5 + 1.0) / scale)), a0 = turn * (0xe169c58d / scale);
    double r1 = sqrt(-2.0 * log((0xbc57ac4c + 1.0) / scale)), a1 = turn * (0x9b00dbd8 / scale);
    CHECK_NEAR(rng_normal(&zero, 0), r0 * cos(a0), 1e-6);
    CHECK_NEAR(rng_normal(&zero, 1), r0 * sin(a0), 1e-6);
    CHECK_NEAR(rng_normal(&zero, 2), r1 * cos(a1), 1e-6);
    CHECK_NEAR(rng_normal(&zero, 3), r1 * sin(a1), 1e-6);
}

// Every part of the place moves the numbers, and a run equals its elements one by one.
static void places(void)
{
    struct rng_place base = {.seed = 0x123456789abcdef0, .step = 3, .stage = 1, .picture = 2};
    struct rng_place other[5] = {base, base, base, base, base};
    float run[37];
    other[0].seed ^= 1;
    other[1].seed ^= (uint64_t)1 << 63;
    other[2].step++;
    other[3].stage++;
    other[4].picture++;
    for (int i = 0; i < 5; i++)
        CHECK(rng_normal(&other[i], 11) != rng_normal(&base, 11));
    rng_normals(&base, 5, 37, run);
    for (uint32_t i = 0; i < 37; i++)
        CHECK(run[i] == rng_normal(&base, 5 + i));
}

static void statistics(void)
{
    enum { N = 400000 };
    static float z[N];
    struct rng_place place = {.seed = 42, .picture = 7};
    double sum = 0.0, squares = 0.0, neighbours = 0.0, beyond = 0.0;
    rng_normals(&place, 0, N, z);
    for (int i = 0; i < N; i++) {
        double x = (double)z[i];
        sum += x;
        squares += x * x;
        beyond += fabs(x) > 1.959964;
        if (i)
            neighbours += x * (double)z[i - 1];
    }
    // Five standard errors each.
    CHECK_NEAR(sum / N, 0.0, 5.0 / sqrt(N));
    CHECK_NEAR(squares / N, 1.0, 5.0 * sqrt(2.0 / N));
    CHECK_NEAR(neighbours / N, 0.0, 5.0 / sqrt(N));
    CHECK_NEAR(beyond / N, 0.05, 5.0 * sqrt(0.05 * 0.95 / N));
}

int main(void)
{
    known_answers();
    convention();
    places();
    statistics();
    return test_end();
}
