// Digests for API keys, idempotency and webhook signatures, from GnuTLS. Any thread.
#include "sha256.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>

static void to_hex(const unsigned char digest[32], char out[65])
{
    for (int i = 0; i < 32; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

void sha256_hex(const void *data, size_t n, char out[65])
{
    unsigned char digest[32] = {0};
    gnutls_hash_fast(GNUTLS_DIG_SHA256, data, n, digest);
    to_hex(digest, out);
}

void sha256_hmac_hex(const void *key, size_t key_size, const void *data, size_t n, char out[65])
{
    unsigned char digest[32] = {0};
    gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, key_size, data, n, digest);
    to_hex(digest, out);
}

bool sha256_same(const char *a, const char *b)
{
    const size_t n = strlen(a);
    return n == strlen(b) && !gnutls_memcmp(a, b, n);
}
