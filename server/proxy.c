// Forwarded headers, see proxy.h. Each proxy appends, so the first scheme and host are the
// client's. The client address is the last one that is not a trusted proxy, because earlier ones
// may be forged. Called by the router; knows nothing about requests.
#include "proxy.h"

#include "buf.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *name, *nets;
} named[] = {
    {"loopback", "127.0.0.0/8,::1"},
    {"private", "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,fe80::/10"},
};

enum { SPACE_BITS = 128, V4_BITS = 32 };

// ---- who is trusted -----------------------------------------------------------------------------

static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

// *v4: the text was an IPv4 address.
static bool parse_ip(const char *s, unsigned char ip[16], bool *v4)
{
    memcpy(ip, mapped, sizeof mapped);
    *v4 = inet_pton(AF_INET, s, ip + sizeof mapped) == 1;
    return *v4 || inet_pton(AF_INET6, s, ip) == 1;
}

static bool same_bits(const unsigned char *a, const unsigned char *b, int bits)
{
    const int whole = bits / 8, rest = bits % 8;
    const unsigned mask = 0xff00u >> rest & 0xff;
    return !memcmp(a, b, (size_t)whole) && (!rest || !((a[whole] ^ b[whole]) & mask));
}

static enum err add_net(char *s, struct proxy_trust *out, struct fault *why)
{
    struct proxy_net *net = &out->net[out->count];
    char *slash = strchr(s, '/'), *end = NULL;
    bool v4;
    if (out->count == PROXY_MAX_NETS)
        return fault_set(why, ERR_INVALID, "trusted-proxies",
                         "trusted-proxies: more than %d networks", PROXY_MAX_NETS);
    if (slash)
        *slash = 0;
    const bool known = parse_ip(s, net->ip, &v4);
    const int space = v4 ? V4_BITS : SPACE_BITS;
    const long bits = slash ? strtol(slash + 1, &end, 10) : space;
    if (slash)
        *slash = '/';
    if (!known || (slash && (end == slash + 1 || *end)) || bits < 0 || bits > space)
        return fault_set(why, ERR_INVALID, "trusted-proxies",
                         "trusted-proxies: \"%.60s\" is not an address, a network such as "
                         "10.0.0.0/8, loopback or private",
                         s);
    net->bits = (int)bits + SPACE_BITS - space;
    out->count++;
    return ERR_OK;
}

static enum err add_nets(const char *list, bool names, struct proxy_trust *out, struct fault *why)
{
    char *save = NULL, *copy = strdup(list);
    enum err err =
        copy ? ERR_OK
             : fault_set(why, ERR_NO_MEMORY, "trusted-proxies", "%s", err_text(ERR_NO_MEMORY));
    for (char *s = copy ? strtok_r(copy, ", ", &save) : NULL; s && !err;
         s = strtok_r(NULL, ", ", &save)) {
        const char *nets = NULL;
        for (size_t i = 0; names && i < sizeof named / sizeof named[0]; i++)
            if (!strcmp(named[i].name, s))
                nets = named[i].nets;
        err = nets ? add_nets(nets, false, out, why) : add_net(s, out, why);
    }
    free(copy);
    return err;
}

enum err proxy_parse(const char *list, struct proxy_trust *out, struct fault *why)
{
    memset(out, 0, sizeof *out);
    return add_nets(list, true, out, why);
}

bool proxy_trusts(const struct proxy_trust *t, const char *ip)
{
    unsigned char bytes[16];
    bool v4;
    if (!parse_ip(ip, bytes, &v4))
        return false;
    for (int i = 0; i < t->count; i++)
        if (same_bits(bytes, t->net[i].ip, t->net[i].bits))
            return true;
    return false;
}

// ---- what they say ------------------------------------------------------------------------------

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == ',' || c == '"';
}

static void trim(const char **s, size_t *n)
{
    while (*n && is_blank(**s))
        ++*s, --*n;
    while (*n && is_blank((*s)[*n - 1]))
        --*n;
}

// Extracts the address, without a port, from "192.0.2.1", "192.0.2.1:80", "2001:db8::1" or
// "[2001:db8::1]:80".
static bool take_client(const char *s, size_t n, char out[48])
{
    unsigned char ip[16];
    char text[64];
    bool v4;
    trim(&s, &n);
    if (!n || n >= sizeof text)
        return false;
    memcpy(text, s, n);
    text[n] = 0;
    char *at = text, *colon = strchr(text, ':');
    if (*at == '[') {
        at++;
        at[strcspn(at, "]")] = 0;
    } else if (colon && !strchr(colon + 1, ':')) {
        *colon = 0;
    }
    if (!parse_ip(at, ip, &v4))
        return false;
    v4 = !memcmp(ip, mapped, sizeof mapped);
    return inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? ip + 12 : ip, out, 48);
}

// Searches backwards from the last address, as long as each is a trusted proxy.
static void take_clients(const struct proxy_trust *t, const char *list, char out[48])
{
    for (size_t end = strlen(list); end;) {
        size_t begin = end;
        char client[48];
        while (begin && list[begin - 1] != ',')
            begin--;
        if (!take_client(list + begin, end - begin, client))
            return;
        memcpy(out, client, sizeof client);
        if (!proxy_trusts(t, client))
            return;
        end = begin ? begin - 1 : 0;
    }
}

static void take_scheme(const char *s, size_t n, char out[8])
{
    static const char *const known[] = {"http", "https"};
    trim(&s, &n);
    for (size_t i = 0; i < 2; i++)
        if (strlen(known[i]) == n && !strncasecmp(known[i], s, n))
            strcpy(out, known[i]);
}

static void take_host(const char *s, size_t n, char out[ADDRESS_HOST])
{
    struct address a;
    struct buf b = {0};
    char text[ADDRESS_HOST];
    trim(&s, &n);
    if (!n || n >= sizeof text)
        return;
    memcpy(text, s, n);
    text[n] = 0;
    if (!address_parse_host(text, "", &a))
        return;
    address_write_host(&a, &b);
    if (!b.failed && b.len < ADDRESS_HOST)
        strcpy(out, b.data);
    buf_deinit(&b);
}

static void take_port(const char *s, size_t n, int *out)
{
    int port = 0;
    trim(&s, &n);
    for (size_t i = 0; i < n; i++) {
        if (n > 5 || s[i] < '0' || s[i] > '9')
            return;
        port = port * 10 + (s[i] - '0');
    }
    if (port <= 65535)
        *out = port;
}

static void take_prefix(const char *s, size_t n, char out[ADDRESS_PREFIX])
{
    char prefix[ADDRESS_PREFIX];
    trim(&s, &n);
    if (address_prefix(s, n, prefix))
        strcpy(out, prefix);
}

// ---- Forwarded: for=192.0.2.1;proto=https;host="a.test", for=...

// The length of the text before the first of `ends` outside quotes.
static size_t span(const char *s, const char *ends)
{
    bool quoted = false;
    size_t n = 0;
    for (; s[n] && (quoted || !strchr(ends, s[n])); n++)
        quoted ^= s[n] == '"';
    return n;
}

static void take_pair(const char *s, size_t n, bool first, struct buf *clients,
                      struct proxy_said *out)
{
    const char *equals = memchr(s, '=', n);
    if (!equals)
        return;
    const char *value = equals + 1;
    size_t name = (size_t)(equals - s);
    const size_t length = n - name - 1;
    trim(&s, &name);
    if (name == 3 && !strncasecmp(s, "for", 3)) {
        buf_puts(clients, clients->len ? "," : "");
        buf_add(clients, value, length);
    } else if (first && name == 5 && !strncasecmp(s, "proto", 5)) {
        take_scheme(value, length, out->scheme);
    } else if (first && name == 4 && !strncasecmp(s, "host", 4)) {
        take_host(value, length, out->host);
    }
}

static void read_forwarded(const struct proxy_trust *t, const char *s, struct proxy_said *out)
{
    struct buf clients = {0};
    for (bool first = true; *s; first = false) {
        const size_t element = span(s, ",");
        for (size_t at = 0; at < element;) {
            size_t pair = span(s + at, ";,");
            take_pair(s + at, pair, first, &clients, out);
            at += pair + 1;
        }
        s += element + (s[element] == ',');
    }
    if (clients.len && !clients.failed)
        take_clients(t, clients.data, out->client);
    buf_deinit(&clients);
}

void proxy_read(const struct proxy_trust *t, const struct proxy_headers *h, struct proxy_said *out)
{
    memset(out, 0, sizeof *out);
    if (h->forwarded && !h->client && !h->scheme && !h->host)
        read_forwarded(t, h->forwarded, out);
    if (h->client)
        take_clients(t, h->client, out->client);
    if (h->scheme)
        take_scheme(h->scheme, strcspn(h->scheme, ","), out->scheme);
    if (h->host)
        take_host(h->host, strcspn(h->host, ","), out->host);
    if (h->port)
        take_port(h->port, strcspn(h->port, ","), &out->port);
    if (h->prefix)
        take_prefix(h->prefix, strcspn(h->prefix, ","), out->prefix);
}
