// Parses web addresses, see address.h. Called by the settings, the router and proxy.c. Any thread.
#include "address.h"

#include "buf.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

// ---- hosts --------------------------------------------------------------------------------------

int address_default_port(const char *scheme)
{
    return !strcmp(scheme, "https") ? 443 : !strcmp(scheme, "http") ? 80 : 0;
}

static bool take_port(const char *s, size_t n, struct address *out)
{
    int port = 0;
    if (!n || n > 5)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!isdigit((unsigned char)s[i]))
            return false;
        port = port * 10 + (s[i] - '0');
    }
    out->port = port == address_default_port(out->scheme) ? 0 : port;
    return port > 0 && port <= 65535;
}

static bool take_name(const char *s, size_t n, bool v6, struct address *out)
{
    unsigned char ip[sizeof(struct in6_addr)];
    if (!n || n >= sizeof out->host)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)s[i]) && !strchr(v6 ? ":." : "-._", s[i]))
            return false;
        if (s[i] == '.' && (!i || s[i - 1] == '.'))
            return false;
        out->host[i] = (char)tolower((unsigned char)s[i]);
    }
    if (n > 1 && !v6 && out->host[n - 1] == '.')
        n--;
    out->host[n] = 0;
    return !v6 || inet_pton(AF_INET6, out->host, ip) == 1;
}

// Parses n bytes of "host[:port]"; out->scheme is already set.
static bool take_authority(const char *s, size_t n, struct address *out)
{
    const bool v6 = n && *s == '[';
    const char *end = memchr(s, v6 ? ']' : ':', n);
    size_t host = end ? (size_t)(end - s) : n;
    out->port = 0;
    if (v6 && !end)
        return false;
    if (!take_name(s + v6, host - v6, v6, out))
        return false;
    host += v6;
    return host == n || (s[host] == ':' && take_port(s + host + 1, n - host - 1, out));
}

bool address_parse_host(const char *text, const char *scheme, struct address *out)
{
    const size_t n = strlen(scheme);
    if (n >= sizeof out->scheme)
        return false;
    memcpy(out->scheme, scheme, n + 1);
    return take_authority(text, strlen(text), out);
}

bool address_parse(const char *text, struct address *out, const char **rest)
{
    const char *at = strstr(text, "://");
    const size_t n = at ? (size_t)(at - text) : 0;
    if (!n || n >= sizeof out->scheme)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)text[i]) && !strchr("+-.", text[i]))
            return false;
        out->scheme[i] = (char)tolower((unsigned char)text[i]);
    }
    out->scheme[n] = 0;
    at += 3;
    const size_t authority = strcspn(at, "/?#");
    if (rest)
        *rest = at + authority;
    return take_authority(at, authority, out) && (rest || !at[authority]);
}

bool address_same_host(const struct address *a, const struct address *b)
{
    return !strcmp(a->host, b->host) && a->port == b->port;
}

bool address_is_ip(const struct address *a)
{
    unsigned char ip[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, a->host, ip) == 1 || inet_pton(AF_INET6, a->host, ip) == 1;
}

void address_write_host(const struct address *a, struct buf *out)
{
    buf_printf(out, strchr(a->host, ':') ? "[%s]" : "%s", a->host);
    if (a->port)
        buf_printf(out, ":%d", a->port);
}

// ---- paths --------------------------------------------------------------------------------------

void address_clean_path(char *path)
{
    char *to = path;
    for (const char *at = path; *at; at++)
        if (*at != '/' || to == path || to[-1] != '/')
            *to++ = *at;
    if (to > path + 1 && to[-1] == '/')
        to--;
    *to = 0;
}

bool address_prefix(const char *path, size_t n, char out[ADDRESS_PREFIX])
{
    while (n && path[n - 1] == '/')
        n--;
    out[0] = 0;
    if (!n)
        return true;
    if (*path != '/' || n >= ADDRESS_PREFIX)
        return false;
    for (size_t i = 0; i < n; i++) {
        const bool begins = i && path[i - 1] == '/';
        if (!isalnum((unsigned char)path[i]) && !strchr("/-._~%!$&()*+=:@", path[i]))
            return false;
        // "//host" would be another server, and "/../" another folder.
        if (begins && (path[i] == '/' || path[i] == '.'))
            return false;
    }
    memcpy(out, path, n);
    out[n] = 0;
    return true;
}
