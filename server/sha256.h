// SHA-256 and HMAC from GnuTLS. Thread: any.
#ifndef IMAGEND_SHA256_H
#define IMAGEND_SHA256_H

#include <stdbool.h>
#include <stddef.h>

// out: 64 hexadecimal digits and a NUL.
void sha256_hex(const void *data, size_t n, char out[65]);
void sha256_hmac_hex(const void *key, size_t key_size, const void *data, size_t n, char out[65]);
// Compares texts of equal length in constant time.
bool sha256_same(const char *a, const char *b);

#endif
