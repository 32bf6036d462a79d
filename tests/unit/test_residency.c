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
    .unit = {{100, 0, 0, 2, 10, false},
             {80, 0, 0, 3, 20, false},
             {30, 0, 0, 4, 50, false},
             {70, 0, 0, 3, 20, true}},
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

// A device of 1 byte; a text encoder of 1000 bytes, of which 900 can be streamed, 10 at a time, and
// networks of 300 (240, 50 at a time) and 80 (40, of which two parts are 60).
static const struct residency streamed = {
    .base = 1,
    .units = 3,
    .texts = 1,
    .unit = {{1000, 900, 10, 2, 10, false},
             {300, 240, 50, 3, 20, false},
             {80, 40, 30, 4, 7, false}},
};

static void check_streams(void)
{
    // always: 1 + 2 + 3 + 4 + 20 = 30
    static const struct {
        size_t limit;
        bool ok;
        unsigned keep;
        size_t room[3], peak[3];
    } rows[] = {
        {1410, true, TEXT | BASE | SUPER, {0, 0, 0}, {1410, 1410, 1410}},
        // The encoder has what the kept networks leave, down to two of its largest.
        {1409, true, BASE | SUPER, {899, 0, 0}, {1409, 410, 410}},
        {530, true, BASE | SUPER, {20, 0, 0}, {530, 410, 410}},
        // Then networks make room; they are loaded whole while they fit alone.
        {529, true, SUPER, {319, 0, 0}, {529, 410, 110}},
        {410, true, SUPER, {200, 0, 0}, {410, 410, 110}},
        {409, true, 0, {279, 0, 0}, {409, 330, 110}},
        {329, true, 0, {199, 239, 0}, {329, 329, 110}},
        {200, true, 0, {70, 110, 0}, {200, 200, 110}},
        {190, true, 0, {60, 100, 0}, {190, 190, 110}},
        {189, false, 0, {59, 100, 0}, {189, 190, 110}},
        {100, false, 0, {20, 100, 0}, {150, 190, 110}},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct residency_plan p;
        unsigned keep = 0;
        const bool ok = residency_plan(&streamed, rows[i].limit, &p);
        for (int k = 0; k < 3; k++) {
            keep |= p.keep[k] ? 1U << k : 0;
            CHECK_MSG(p.peak[k] == rows[i].peak[k] && p.room[k] == rows[i].room[k],
                      "limit %zu, unit %d: peak %zu, room %zu", rows[i].limit, k, p.peak[k],
                      p.room[k]);
        }
        CHECK_MSG(ok == rows[i].ok && keep == rows[i].keep, "limit %zu: %u", rows[i].limit, keep);
    }
    CHECK_INT(residency_least(&streamed), 190);
}

// For every limit, the plan fits, or nothing is kept and the limit is below the least.
static void check_every_limit(const struct residency *r)
{
    for (size_t limit = 1; limit < 1500; limit++) {
        struct residency_plan p;
        const bool ok = residency_plan(r, limit, &p);
        CHECK(ok == (limit >= residency_least(r)) && (p.most <= limit) == ok);
        CHECK(ok || p.most == residency_least(r));
        for (int i = 0; i < r->units; i++)
            CHECK(ok || !p.keep[i]);
    }
}

static void check_limits(void)
{
    for (size_t bytes = 1; bytes < (size_t)1 << 40; bytes = bytes * 3 + 7)
        CHECK(residency_usable(residency_limit(bytes)) >= bytes);
}

int main(void)
{
    check_rows();
    check_streams();
    check_every_limit(&four);
    check_every_limit(&streamed);
    CHECK_INT(residency_least(&four), 163);
    check_limits();
    return test_end();
}
