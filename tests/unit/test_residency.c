// Plans of device memory: what is released for a limit, in which order, and the peaks.
#include "residency.h"
#include "test.h"

enum { TEXT = 1, BASE = 2, SUPER = 4, EXTRA = 8 }; // bits of what is kept

// A device of 1 byte; weights, state and activations of a text encoder, two networks and one on
// demand.
static const struct residency four = {
    .base = 1,
    .units = 4,
    .texts = 1,
    .unit = {{100, 2, 10, false}, {80, 3, 20, false}, {30, 4, 50, false}, {70, 3, 20, true}},
};

static void check_rows(void)
{
    // always: 1 + 2 + 3 + 4 + 3 + 50 = 63
    static const struct {
        size_t limit;
        bool ok;
        unsigned keep;
        size_t peak[4];
    } rows[] = {
        {0, true, TEXT | BASE | SUPER | EXTRA, {343, 343, 343, 343}},
        {343, true, TEXT | BASE | SUPER | EXTRA, {343, 343, 343, 343}},
        {342, true, BASE | SUPER, {273, 173, 173, 243}},
        {273, true, BASE | SUPER, {273, 173, 173, 243}},
        {272, true, SUPER, {193, 173, 93, 163}},
        {193, true, SUPER, {193, 173, 93, 163}},
        {192, true, 0, {163, 143, 93, 133}},
        {163, true, 0, {163, 143, 93, 133}},
        {162, false, 0, {163, 143, 93, 133}},
        {1, false, 0, {163, 143, 93, 133}},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct residency_plan p;
        unsigned keep = 0;
        const bool ok = residency_plan(&four, rows[i].limit, &p);
        size_t most = 0;
        for (int k = 0; k < 4; k++) {
            keep |= p.keep[k] ? 1U << k : 0;
            most = p.peak[k] > most ? p.peak[k] : most;
            CHECK_MSG(p.peak[k] == rows[i].peak[k], "limit %zu, unit %d: %zu", rows[i].limit, k,
                      p.peak[k]);
        }
        CHECK_MSG(ok == rows[i].ok && keep == rows[i].keep && p.most == most, "limit %zu: %u, %zu",
                  rows[i].limit, keep, p.most);
    }
}

// For every limit, the plan fits, or nothing is kept and the limit is below the least.
static void check_every_limit(void)
{
    for (size_t limit = 1; limit < 400; limit++) {
        struct residency_plan p;
        const bool ok = residency_plan(&four, limit, &p);
        CHECK(ok == (limit >= residency_least(&four)) && (p.most <= limit) == ok);
        CHECK(ok || !(p.keep[0] || p.keep[1] || p.keep[2] || p.keep[3]));
    }
    CHECK_INT(residency_least(&four), 163);
}

static void check_limits(void)
{
    for (size_t bytes = 1; bytes < (size_t)1 << 40; bytes = bytes * 3 + 7)
        CHECK(residency_usable(residency_limit(bytes)) >= bytes);
}

int main(void)
{
    check_rows();
    check_every_limit();
    check_limits();
    return test_end();
}
