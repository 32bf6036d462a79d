// A 128-bit hash, see hash.h: two 64-bit lanes of multiply and rotate, finished by the splitmix64
// finalizer. Called from any layer, on any thread. Hashes are part of the names of cache files, so
// they must be the same on every machine.
#include "hash.h"

#include <stdio.h>
#include <string.h>

static const uint64_t K0 = 0x9e3779b97f4a7c15u, K1 = 0xbf58476d1ce4e5b9u;

static uint64_t rotl(uint64_t x, int r)
{
    return x << r | x >> (64 - r);
}

static uint64_t finish(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint64_t load(const unsigned char *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

static void mix(struct hash *h, uint64_t v)
{
    h->lo = rotl((h->lo ^ v) * K0, 29) + h->hi;
    h->hi = rotl((h->hi + v) * K1, 37) ^ h->lo;
}

struct hash hash_bytes(const void *data, size_t n, uint64_t seed)
{
    const unsigned char *p = data;
    struct hash h = {finish(seed + K0), finish(seed ^ K1)};
    size_t left = n;

    for (; left >= 8; left -= 8, p += 8)
        mix(&h, load(p, 8));
    mix(&h, load(p, left));
    mix(&h, n);
    h.lo = finish(h.lo);
    h.hi = finish(h.hi + h.lo);
    h.lo ^= rotl(h.hi, 32);
    return h;
}

struct hash hash_text(const char *s)
{
    return hash_bytes(s, strlen(s), 0);
}

struct hash hash_join(struct hash a, struct hash b)
{
    mix(&a, b.lo);
    mix(&a, b.hi);
    a.lo = finish(a.lo);
    a.hi = finish(a.hi + a.lo);
    return a;
}

void hash_hex(struct hash h, char out[33])
{
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)h.hi, (unsigned long long)h.lo);
}
