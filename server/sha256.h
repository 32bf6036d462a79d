// SHA-256 and HMAC, by the TLS library.
#ifndef IMAGEND_SHA256_H
#define IMAGEND_SHA256_H

#include <stdbool.h>
#include <stddef.h>

// 64 hexadecimal digits and a NUL. Thread: any, as for all of these.
void sha256_hex(const void *data, size_t n, char out[65]);
void sha256_hmac_hex(const void *key, size_t key_size, const void *data, size_t n, char out[65]);
// Compares texts of equal length in a time that does not depend on where they differ.
bool sha256_same(const char *a, const char *b);

#endif
