// Web addresses in configuration values and headers: origins, hosts with ports, path prefixes. Any
// thread.
#ifndef IMAGEND_ADDRESS_H
#define IMAGEND_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

struct buf;

enum { ADDRESS_HOST = 256, ADDRESS_PREFIX = 256 };

struct address {
    char scheme[32];         // in lower case
    char host[ADDRESS_HOST]; // lowercase, without a final dot; IPv6 without brackets
    int port;                // 0: the scheme's default
};

// Parses "scheme://host[:port]"; *rest (may be NULL) is the remainder, "" or starting with '/', '?'
// or '#'.
bool address_parse(const char *text, struct address *out, const char **rest);
// Parses "host[:port]", as in a Host header. The default port of scheme becomes 0.
bool address_parse_host(const char *text, const char *scheme, struct address *out);
bool address_same_host(const struct address *a, const struct address *b); // and port
// Whether the host is a literal IPv4 or IPv6 address.
bool address_is_ip(const struct address *a);
void address_write_host(const struct address *a, struct buf *out); // "host[:port]"
int address_default_port(const char *scheme);                      // 0: unknown scheme

// Normalizes a path: removes empty segments, and the final slash except in "/".
void address_clean_path(char *path);
// Checks and normalizes the path prefix of a public URL: "/a/b" without a final slash, "" for "/".
// False if it is invalid.
bool address_prefix(const char *path, size_t n, char out[ADDRESS_PREFIX]);

#endif
