// The parts of a connection string, and the addresses of its hosts: libpq would look them up
// itself, but blocks meanwhile. Called by pg.c on the loop thread.
#include "pg_impl.h"

#include "buf.h"

#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct pg_names {
    uv_getaddrinfo_t req;
    uv_loop_t *loop;
    pg_names_fn *done; // NULL: forgotten
    void *ctx;
    PQconninfoOption *given; // the connection string
    PQconninfoOption *all;   // completed by the environment and libpq's defaults
    char *hosts;             // a copy of "host"; each comma replaced by a NUL
    int host, count;
    // The result: a host once per address.
    struct buf host_list, address_list, port_list;
    int found;
    struct fault why;
};

static const char *value_of(const PQconninfoOption *all, const char *name)
{
    for (const PQconninfoOption *o = all; o && o->keyword; o++)
        if (!strcmp(o->keyword, name))
            return o->val && *o->val ? o->val : NULL;
    return NULL;
}

// A message of libpq may quote any part of the string, such as half a password.
static enum err read_options(const char *database, PQconninfoOption **out, struct fault *why)
{
    char *text = NULL;
    *out = PQconninfoParse(database, &text);
    PQfreemem(text);
    return *out ? ERR_OK
                : fault_set(why, ERR_INVALID, "database",
                            "database is not a connection string or URI that libpq understands; "
                            "use a form like \"host=db1 dbname=imagend user=imagend\"");
}

enum err pg_names_check(const char *database, struct fault *why)
{
    PQconninfoOption *given;
    enum err err = read_options(database, &given, why);
    if (err)
        return err;
    if (value_of(given, "password") || value_of(given, "sslpassword"))
        err = fault_set(why, ERR_INVALID, "database",
                        "database must not contain a password; use database-password-file or "
                        "libpq's PGPASSFILE");
    else if (value_of(given, "service"))
        err = fault_set(why, ERR_INVALID, "database",
                        "database must not name a service; set host, port, dbname and user");
    PQconninfoFree(given);
    return err;
}

// Completes the options of a connection string. NULL if out of memory.
static PQconninfoOption *complete(const PQconninfoOption *given)
{
    PQconninfoOption *all = PQconndefaults();
    for (PQconninfoOption *o = all; o && o->keyword; o++) {
        const char *v = value_of(given, o->keyword);
        if (!v)
            continue;
        PQfreemem(o->val);
        o->val = strdup(v); // PQconninfoFree frees it
        if (!o->val) {
            PQconninfoFree(all);
            return NULL;
        }
    }
    return all;
}

static void names_free(struct pg_names *n)
{
    PQconninfoFree(n->given);
    PQconninfoFree(n->all);
    free(n->hosts);
    buf_deinit(&n->host_list);
    buf_deinit(&n->address_list);
    buf_deinit(&n->port_list);
    free(n);
}

static void set(struct pg_settings *s, const char *keyword, const char *value)
{
    if (s->n + 1 >= (int)(sizeof s->keyword / sizeof *s->keyword))
        return;
    s->keyword[s->n] = keyword;
    s->value[s->n++] = value;
}

// Settings that a service needs unless the operator has others: a dead peer is noticed, and nothing
// asks a Kerberos server, which would block.
static const struct {
    const char *keyword, *variable, *value;
} preferred[] = {
    {"keepalives_idle", NULL, "10"},           {"keepalives_interval", NULL, "5"},
    {"keepalives_count", NULL, "3"},           {"tcp_user_timeout", NULL, "15000"},
    {"gssencmode", "PGGSSENCMODE", "disable"},
};

static const char *setting(const struct pg_names *n, const PQconninfoOption *o)
{
    const bool looked_up = n->count > 0;
    if (looked_up && !strcmp(o->keyword, "host"))
        return n->host_list.data;
    if (looked_up && !strcmp(o->keyword, "hostaddr"))
        return n->address_list.data;
    if (looked_up && !strcmp(o->keyword, "port"))
        return n->port_list.data;
    for (size_t i = 0; i < sizeof preferred / sizeof *preferred; i++) {
        const char *variable = preferred[i].variable;
        if (!strcmp(o->keyword, preferred[i].keyword) && !value_of(n->given, o->keyword) &&
            !(variable && getenv(variable)))
            return preferred[i].value;
    }
    return o->val;
}

static void finish(struct pg_names *n)
{
    struct pg_settings s = {0};
    if (n->host_list.failed || n->address_list.failed || n->port_list.failed)
        fault_set(&n->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    else if (!n->count || n->found)
        n->why = (struct fault){0};
    for (const PQconninfoOption *o = n->all; o->keyword; o++) {
        const char *v = setting(n, o);
        if (v && *v)
            set(&s, o->keyword, v);
    }
    const char *seconds = value_of(n->all, "connect_timeout");
    s.connect_seconds = seconds ? strtod(seconds, NULL) : 0;
    n->done(n->ctx, n->why.code ? NULL : &s, &n->why);
}

// The item of a list separated by commas; the only one is everybody's.
static void item(const char *list, int i, char *out, size_t n)
{
    const char *at = list ? list : "";
    if (!strchr(at, ','))
        i = 0;
    for (; i; i--) {
        const char *comma = strchr(at, ',');
        at = comma ? comma + 1 : "";
    }
    snprintf(out, n, "%.*s", (int)strcspn(at, ","), at);
}

static void add(struct pg_names *n, const char *host, const char *address)
{
    char port[32];
    const char *comma = n->found++ ? "," : "";
    item(value_of(n->all, "port"), n->host, port, sizeof port);
    buf_printf(&n->host_list, "%s%s", comma, host);
    buf_printf(&n->address_list, "%s%s", comma, address);
    buf_printf(&n->port_list, "%s%s", comma, port);
}

static const char *host_at(const struct pg_names *n, int i)
{
    const char *at = n->hosts;
    for (; i; i--)
        at += strlen(at) + 1;
    return at;
}

static void unknown(struct pg_names *n, const char *host, int status)
{
    fault_set(&n->why, ERR_BUSY, "store", "cannot look up the database host \"%.60s\": %s", host,
              uv_strerror(status));
}

static void look_up(struct pg_names *n);

static void on_addresses(uv_getaddrinfo_t *req, int status, struct addrinfo *found)
{
    struct pg_names *n = req->data;
    const char *host = host_at(n, n->host);
    for (const struct addrinfo *a = found; a && !status; a = a->ai_next) {
        char text[64];
        if (!getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST))
            add(n, host, text);
    }
    if (status)
        unknown(n, host, status);
    uv_freeaddrinfo(found);
    n->host++;
    if (n->done)
        look_up(n);
    else
        names_free(n);
}

static void look_up(struct pg_names *n)
{
    static const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    while (n->host < n->count) {
        const char *host = host_at(n, n->host);
        if (*host && *host != '/' && *host != '@') {
            n->req.data = n;
            const int rc = uv_getaddrinfo(n->loop, &n->req, on_addresses, host, NULL, &hints);
            if (!rc)
                return;
            unknown(n, host, rc);
        } else {
            add(n, host, ""); // a Unix socket
        }
        n->host++;
    }
    finish(n);
    names_free(n);
}

enum err pg_names_find(uv_loop_t *loop, const char *database, pg_names_fn *done, void *ctx,
                       struct pg_names **out)
{
    struct pg_names *n = calloc(1, sizeof *n);
    *out = NULL;
    if (!n)
        return ERR_NO_MEMORY;
    if (read_options(database, &n->given, NULL) || !(n->all = complete(n->given))) {
        names_free(n);
        return ERR_NO_MEMORY;
    }
    n->loop = loop;
    n->done = done;
    n->ctx = ctx;
    const char *host = value_of(n->all, "host");
    if (host && !value_of(n->all, "hostaddr")) {
        n->hosts = strdup(host);
        if (!n->hosts) {
            names_free(n);
            return ERR_NO_MEMORY;
        }
        n->count = 1;
        for (char *at = n->hosts; (at = strchr(at, ',')); n->count++)
            *at++ = 0;
    }
    *out = n;
    look_up(n);
    return ERR_OK;
}

void pg_names_forget(struct pg_names **n)
{
    if (*n)
        (*n)->done = NULL; // freed by the pending lookup
    *n = NULL;
}
