// Finds the route of a path: one rule for spellings of a path, and the nearest route if none
// matches. Loop thread; knows paths and methods only.
#include "router_impl.h"

#include "address.h"
#include "http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIND_SEGMENTS = 8,
    FIND_LETTERS = 64,
    // Costs of a segment: missing, surplus, matched by "{...}", different.
    FIND_MISSING = 2,
    FIND_EXTRA = 5,
    FIND_ANY = 3,
    FIND_OTHER = 7,
    FIND_FAR = 6, // maximum cost of a suggestion
};

// ---- matching -----------------------------------------------------------------------------------

bool router_match(const char *pattern, char *path, const char *arg[2])
{
    int args = 0;
    char *at = path;
    arg[0] = arg[1] = NULL;
    for (; *pattern; pattern++) {
        if (*pattern != '{') {
            if (*pattern != *at++)
                return false;
            continue;
        }
        pattern = strchr(pattern, '}');
        const char *end = strchr(at, '/');
        const size_t n = end && pattern[1] ? (size_t)(end - at) : strlen(at);
        if (!n || (!pattern[1] && end) || args == 2)
            return false;
        arg[args++] = at;
        at += n;
    }
    if (*at)
        return false;
    for (int i = 0; i < args; i++)
        if (strchr(arg[i], '/'))
            *strchr(path + (arg[i] - path), '/') = 0;
    return true;
}

static const char *route_method(const char *method)
{
    return strcmp(method, "HEAD") ? method : "GET";
}

// allowed accumulates over calls.
static bool find_exactly(struct call *c, const char *path, char allowed[ROUTER_METHODS])
{
    const char *method = route_method(http_method(c->http));
    const struct route *route;
    int at = 0;
    while ((route = router_next(c->router, &at))) {
        free(c->path);
        c->path = strdup(path);
        if (!c->path || !router_match(route->path, c->path, c->arg))
            continue;
        if (route->flags & ROUTE_EXACT && strcmp(http_raw_path(c->http), route->path))
            continue;
        if (!strcmp(route->method, method)) {
            c->route = route;
            c->errors = route->errors;
            return true;
        }
        const size_t len = strlen(allowed);
        snprintf(allowed + len, ROUTER_METHODS - len, "%s%s", len ? ", " : "", route->method);
    }
    return false;
}

// ---- spellings ----------------------------------------------------------------------------------

// The path without the prefix that a proxy adds and may not remove.
static const char *below_prefix(const struct call *c, const char *path)
{
    const char *prefix = call_prefix(c);
    const size_t n = strlen(prefix);
    if (!n || strncmp(path, prefix, n) || (path[n] && path[n] != '/'))
        return path;
    return path[n] ? path + n : "/";
}

bool router_find(struct call *c, char allowed[ROUTER_METHODS])
{
    static const char version[] = "/v1";
    const size_t n = sizeof version - 1;
    char *clean = strdup(http_path(c->http));
    char *longer = clean ? malloc(n + strlen(clean) + 1) : NULL;
    bool found = false;
    allowed[0] = 0;
    if (longer) {
        address_clean_path(clean);
        const char *path = below_prefix(c, clean);
        strcpy(longer, version);
        strcat(longer, path);
        // Unchanged; without the prefix; without a leading /v1; with /v1 twice.
        const char *const tries[] = {
            clean,
            path,
            longer,
            !strncmp(path, version, n) && !strncmp(path + n, "/v1/", n + 1) ? path + n : clean,
        };
        for (size_t i = 0; i < sizeof tries / sizeof tries[0] && !found && !*allowed; i++) {
            found = find_exactly(c, tries[i], allowed);
            if (found || *allowed)
                http_set_path(c->http, tries[i]);
        }
        if (!found && !*allowed)
            http_set_path(c->http, path);
    }
    free(clean);
    free(longer);
    return found;
}

bool router_redirect(struct call *c)
{
    const char *raw = http_raw_path(c->http), *end = raw + strlen(raw), *name = strrchr(raw, '/');
    if (!(c->route->flags & ROUTE_LINKS))
        return false;
    const bool folder = !strcmp(c->route->path, "/");
    if (folder == (end > raw && end[-1] == '/'))
        return false;
    if (folder) {
        http_set_header(c->http, "Location", "%s/", name ? name + 1 : raw);
    } else {
        char up[64] = "";
        for (size_t n = 0; end > raw && end[-1] == '/' && n + 4 < sizeof up; end--, n += 3)
            strcat(up, "../");
        http_set_header(c->http, "Location", "%s%s", up, c->route->path + 1);
    }
    http_reply(c->http, 308, NULL, NULL);
    return true;
}

// ---- the nearest ------------------------------------------------------------------------------

struct segments {
    const char *at[FIND_SEGMENTS];
    size_t n[FIND_SEGMENTS];
    int count;
};

static bool split(const char *path, struct segments *out)
{
    out->count = 0;
    for (const char *at = path + (*path == '/'); *at;) {
        const size_t n = strcspn(at, "/");
        if (out->count == FIND_SEGMENTS || n > FIND_LETTERS)
            return false;
        out->at[out->count] = at;
        out->n[out->count++] = n;
        at += n + (at[n] == '/');
    }
    return true;
}

static int smallest(int a, int b, int c)
{
    const int ab = a < b ? a : b;
    return ab < c ? ab : c;
}

// The number of letters to change, add or remove.
static int letters_apart(const char *a, size_t na, const char *b, size_t nb)
{
    int row[FIND_LETTERS + 1];
    for (size_t k = 0; k <= nb; k++)
        row[k] = (int)k;
    for (size_t i = 1; i <= na; i++) {
        int before = row[0];
        row[0] = (int)i;
        for (size_t k = 1; k <= nb; k++) {
            const int above = row[k];
            row[k] = smallest(above + 1, row[k - 1] + 1, before + (a[i - 1] != b[k - 1]));
            before = above;
        }
    }
    return row[nb];
}

static int segment_cost(const struct segments *path, int i, const struct segments *route, int k)
{
    const size_t n = path->n[i] > route->n[k] ? path->n[i] : route->n[k];
    if (*route->at[k] == '{')
        return FIND_ANY;
    const int apart = letters_apart(path->at[i], path->n[i], route->at[k], route->n[k]);
    return (size_t)apart * 2 <= n ? apart : FIND_OTHER;
}

static int path_cost(const struct segments *path, const struct segments *route)
{
    int row[FIND_SEGMENTS + 1];
    for (int k = 0; k <= route->count; k++)
        row[k] = k * FIND_MISSING;
    for (int i = 1; i <= path->count; i++) {
        int before = row[0];
        row[0] = i * FIND_EXTRA;
        for (int k = 1; k <= route->count; k++) {
            const int above = row[k];
            row[k] = smallest(above + FIND_EXTRA, row[k - 1] + FIND_MISSING,
                              before + segment_cost(path, i - 1, route, k - 1));
            before = above;
        }
    }
    return row[route->count];
}

const struct route *router_nearest(const struct route *const *tables, const char *method,
                                   const char *path)
{
    const struct route *best = NULL;
    struct segments asked, there;
    int cost = 2 * FIND_FAR + 2;
    if (!split(path, &asked))
        return NULL;
    for (const struct route *const *t = tables; *t; t++)
        for (const struct route *r = *t; r->path; r++) {
            if (r->flags & ROUTE_HIDDEN || !split(r->path, &there))
                continue;
            // Of two equally near routes, prefer the one with the same method.
            const int c = 2 * path_cost(&asked, &there) + (strcmp(r->method, method) != 0);
            if (c < cost) {
                cost = c;
                best = r;
            }
        }
    return best;
}

void router_refuse_path(struct call *c, const char *allowed)
{
    const char *path = http_path(c->http), *method = http_method(c->http);
    const struct route *near = router_nearest(c->router->p.tables, route_method(method), path);
    // Use an error format that the clients of the API understand.
    if (!strncmp(path, "/sdapi/", 7))
        c->errors = ERRORS_A1111;
    if (*allowed) {
        http_set_header(c->http, "Allow", "%s", allowed);
        call_error(c, 405, NULL, NULL, "%s does not allow %s; use %s", path, method, allowed);
    } else if (near) {
        call_error(c, 404, NULL, NULL, "no such endpoint: %s %.200s; did you mean %s %s?", method,
                   path, near->method, near->path);
    } else {
        call_error(c, 404, NULL, NULL, "no such endpoint: %s %.200s; %s/docs lists the endpoints",
                   method, path, call_prefix(c));
    }
}
