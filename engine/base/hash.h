// A 128-bit hash for cache keys and file checks: fast, not cryptographic. Where a collision would
// do harm, compare the data as well.
#ifndef IMAGEND_HASH_H
#define IMAGEND_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash {
    uint64_t lo, hi;
};

struct hash hash_bytes(const void *data, size_t n, uint64_t seed);
struct hash hash_text(const char *s);
// The hash of the pair; order matters.
struct hash hash_join(struct hash a, struct hash b);
static inline bool hash_equal(struct hash a, struct hash b)
{
    return a.lo == b.lo && a.hi == b.hi;
}
// 32 hexadecimal digits and a NUL.
void hash_hex(struct hash h, char out[33]);

#endif
