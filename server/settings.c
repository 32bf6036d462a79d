// Reads and checks what the configuration names. Knows no running server: who calls it puts the
// result in force, or drops it.
#include "settings.h"

#include "auth.h"
#include "buf.h"
#include "conf.h"
#include "http.h"

#include <stdlib.h>
#include <string.h>

enum { SETTINGS_MAX_PEM = 1 << 20 };

// "a, b" into a list.
static enum err read_list(const char *option, const char *text, struct settings_list *l,
                          struct fault *why)
{
    char *save = NULL;
    int n = 0;
    l->text = strdup(text);
    if (!l->text)
        return fault_set(why, ERR_NO_MEMORY, option, "%s", err_text(ERR_NO_MEMORY));
    for (char *s = strtok_r(l->text, ", ", &save); s; s = strtok_r(NULL, ", ", &save)) {
        if (n == SETTINGS_MAX_NAMES)
            return fault_set(why, ERR_INVALID, option, "%s: more than %d entries", option,
                             SETTINGS_MAX_NAMES);
        l->item[n++] = s;
    }
    l->item[n] = NULL;
    return ERR_OK;
}

// Without keys, whoever reaches the server may use it; then at least no web page may, by a name of
// its own that it made to point here.
static enum err read_hosts(const struct conf *c, bool local, struct settings *out,
                           struct fault *why)
{
    struct buf names = {0};
    char host[256];
    enum err err = ERR_NO_MEMORY;
    conf_public_host(c, host, sizeof host);
    buf_printf(&names, "%s,%s", c->host_names, host);
    if (names.failed)
        fault_set(why, err, "host-names", "%s", err_text(err));
    else
        err = read_list("host-names", names.data, &out->hosts, why);
    buf_deinit(&names);
    out->any_host = !*c->host_names && !(local && !auth_count(out->auth));
    return err;
}

static enum err read_tls(const struct conf *c, struct http_tls **out, struct fault *why)
{
    struct buf cert = {0}, key = {0};
    enum err err = ERR_OK;
    if (!*c->tls_cert && !*c->tls_key)
        return ERR_OK;
    if (!*c->tls_cert || !*c->tls_key)
        return fault_set(why, ERR_INVALID, "tls-cert",
                         "tls-cert and tls-key must be set together; %s is empty",
                         *c->tls_cert ? "tls-key" : "tls-cert");
    err = buf_read_file(&cert, c->tls_cert, SETTINGS_MAX_PEM, why);
    if (!err)
        err = buf_read_file(&key, c->tls_key, SETTINGS_MAX_PEM, why);
    if (!err)
        err = http_tls_create(cert.data ? cert.data : "", key.data ? key.data : "", out, why);
    buf_deinit(&cert);
    if (key.data)
        memset(key.data, 0, key.len);
    buf_deinit(&key);
    return err;
}

static enum err check_exposure(const struct conf *c, const struct auth *auth, const char *host,
                               struct fault *why)
{
    if (auth_count(auth) || conf_is_local(host) || c->allow_open)
        return ERR_OK;
    return fault_set(why, ERR_INVALID, "listen",
                     "%s is reachable from outside and there are no API keys: set keys-file, "
                     "or allow-open if that is wanted",
                     host);
}

enum err settings_read(const struct conf *c, struct settings *out, struct fault *why)
{
    char host[256];
    int port;
    memset(out, 0, sizeof *out);
    enum err err = conf_listen(c, host, sizeof host, &port, why);
    if (!err)
        err = auth_create(c->keys_file, &out->auth, why);
    if (!err)
        err = check_exposure(c, out->auth, host, why);
    if (!err)
        err = read_tls(c, &out->tls, why);
    if (!err)
        err = read_list("cors-origins", c->cors_origins, &out->origins, why);
    if (!err)
        err = read_hosts(c, conf_is_local(host), out, why);
    return err;
}

void settings_deinit(struct settings *s)
{
    auth_destroy(&s->auth);
    http_tls_destroy(&s->tls);
    free(s->origins.text);
    free(s->hosts.text);
    memset(s, 0, sizeof *s);
}
