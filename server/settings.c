// Reads and checks the files and lists that the configuration names. Knows nothing about the
// running server; the caller applies or discards the result.
#include "settings.h"

#include "auth.h"
#include "buf.h"
#include "conf.h"
#include "http.h"

#include <stdlib.h>
#include <string.h>

enum { SETTINGS_MAX_PEM = 1 << 20 };

// Splits "a, b" into a list.
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

// ---- models -----------------------------------------------------------------------------------

static enum err read_models(const struct conf *c, struct models_file *out, struct fault *why)
{
    const struct {
        const char *option, *value;
    } of_one[] = {{"model", c->model},
                  {"text-encoder", c->text_encoder},
                  {"lora", c->lora},
                  {"lora-choices", c->lora_choices}};
    if (!*c->models_file)
        return ERR_OK;
    for (size_t i = 0; i < sizeof of_one / sizeof *of_one; i++)
        if (*of_one[i].value)
            return fault_set(why, ERR_INVALID, of_one[i].option,
                             "%s cannot be set together with models-file; set it in the section of "
                             "a model there",
                             of_one[i].option);
    return models_file_read(c->models_file, out, why);
}

// ---- names ------------------------------------------------------------------------------------

// Without keys, every client that reaches the server may use it. Checking the Host header then
// prevents web pages from doing so by DNS rebinding.
static enum err read_hosts(const struct conf *c, bool local, struct settings *out,
                           struct fault *why)
{
    const enum err err = read_list("host-names", c->host_names, &out->hosts, why);
    for (int i = 0; !err && out->hosts.item[i]; i++) {
        struct address a;
        if (!address_parse_host(out->hosts.item[i], "", &a) || a.port)
            return fault_set(why, ERR_INVALID, "host-names",
                             "host-names: \"%.80s\" is not a host name; leave out scheme, port "
                             "and path",
                             out->hosts.item[i]);
    }
    out->any_host = !*c->host_names && !(local && !auth_count(out->auth));
    return err;
}

// Whether the origin is spelled as browsers spell it; otherwise it would never match.
static bool is_origin(const char *s)
{
    struct address a;
    struct buf b = {0};
    if (!strcmp(s, "*") || !strcmp(s, "null"))
        return true;
    bool ok = address_parse(s, &a, NULL);
    if (ok) {
        buf_printf(&b, "%s://", a.scheme);
        address_write_host(&a, &b);
        ok = b.data && !strcmp(b.data, s);
    }
    buf_deinit(&b);
    return ok;
}

static enum err read_origins(const struct conf *c, struct settings *out, struct fault *why)
{
    const enum err err = read_list("cors-origins", c->cors_origins, &out->origins, why);
    for (int i = 0; !err && out->origins.item[i]; i++)
        if (!is_origin(out->origins.item[i]))
            return fault_set(why, ERR_INVALID, "cors-origins",
                             "cors-origins: \"%.80s\" is not an origin as browsers send it, such "
                             "as https://app.example.org or http://localhost:3000",
                             out->origins.item[i]);
    return err;
}

// ---- public-url -------------------------------------------------------------------------------

// Without a scheme, HTTPS is assumed, except for hosts that cannot have a certificate that browsers
// accept.
static bool parse_url(const char *url, struct address *a, const char **rest)
{
    char host[ADDRESS_HOST];
    if (strstr(url, "://"))
        return address_parse(url, a, rest) &&
               (!strcmp(a->scheme, "https") || !strcmp(a->scheme, "http"));
    const size_t n = strcspn(url, "/?#");
    if (n >= sizeof host)
        return false;
    memcpy(host, url, n);
    host[n] = 0;
    *rest = url + n;
    if (!address_parse_host(host, "https", a))
        return false;
    return (!address_is_ip(a) && strcmp(a->host, "localhost")) ||
           address_parse_host(host, "http", a);
}

static enum err read_public_url(const struct conf *c, struct settings *out, struct fault *why)
{
    struct buf b = {0};
    const char *url = c->public_url, *rest = "";
    struct address *a = &out->public_origin;
    if (*url &&
        (!parse_url(url, a, &rest) || !address_prefix(rest, strlen(rest), out->public_prefix)))
        return fault_set(why, ERR_INVALID, "public-url",
                         "public-url: \"%.100s\" is not a URL such as https://images.example.org "
                         "or https://example.org/images",
                         url);
    if (*url) {
        buf_printf(&b, "%s://", a->scheme);
        address_write_host(a, &b);
        buf_puts(&b, out->public_prefix);
    }
    out->public_url = b.len ? buf_take(&b) : strdup("");
    buf_deinit(&b);
    return out->public_url ? ERR_OK
                           : fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
}

// ---- TLS --------------------------------------------------------------------------------------

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

// ---- webhooks ---------------------------------------------------------------------------------

static enum err read_secret(const struct conf *c, char **out, struct fault *why)
{
    enum { LARGEST = 4096, SHORTEST = 16 };
    struct buf b = {0};
    if (!*c->webhook_allow)
        return ERR_OK;
    if (!*c->webhook_secret_file)
        return fault_set(why, ERR_INVALID, "webhook-secret-file",
                         "webhook-allow needs webhook-secret-file");
    const enum err err = buf_read_file(&b, c->webhook_secret_file, LARGEST, why);
    if (err)
        return err;
    *out = buf_take(&b);
    if (*out)
        (*out)[strcspn(*out, "\r\n")] = 0;
    if (!*out || strlen(*out) < SHORTEST)
        return fault_set(why, ERR_INVALID, "webhook-secret-file",
                         "webhook-secret-file: the secret must be at least %d bytes long",
                         SHORTEST);
    return ERR_OK;
}

// ---- all settings -------------------------------------------------------------------------------

static enum err check_exposure(const struct conf *c, const struct auth *auth, const char *host,
                               struct fault *why)
{
    if (auth_count(auth) || conf_is_local(host) || c->allow_open)
        return ERR_OK;
    return fault_set(why, ERR_INVALID, "listen",
                     "%s is reachable from other machines, but no API keys are configured; set "
                     "keys-file, or allow-open to permit this",
                     host);
}

// Options are shown, logged by orchestrators and visible in the list of processes.
static bool has_password(const char *database)
{
    const char *authority = strstr(database, "://");
    const char *at = authority ? strchr(authority + 3, '@') : NULL;
    const char *colon = authority ? strchr(authority + 3, ':') : NULL;
    return strstr(database, "password") || (at && colon && colon < at);
}

static enum err check_database(const struct conf *c, struct fault *why)
{
    if (has_password(c->database))
        return fault_set(why, ERR_INVALID, "database",
                         "database must not contain a password; use database-password-file or "
                         "libpq's PGPASSFILE");
    if (c->store == CONF_STORE_POSTGRES && !*c->database)
        return fault_set(why, ERR_INVALID, "database",
                         "store = postgres requires database, such as \"host=db1 dbname=imagend "
                         "user=imagend\"");
    if (c->store != CONF_STORE_POSTGRES && *c->database)
        return fault_set(why, ERR_INVALID, "database",
                         "database is set, but store is not postgres; set store to postgres, or "
                         "remove database");
    for (const char *p = c->replica_name; *p; p++)
        if (*p <= ' ' || *p > '~' || p - c->replica_name >= 64)
            return fault_set(why, ERR_INVALID, "replica-name",
                             "replica-name \"%.64s\" must have at most 64 printable ASCII "
                             "characters without spaces",
                             c->replica_name);
    return ERR_OK;
}

// ---- result-store -----------------------------------------------------------------------------

static enum err refuse_bucket(const struct conf *c, struct fault *why)
{
    return fault_set(why, ERR_INVALID, "result-store",
                     "result-store: \"%.100s\" is neither \"database\" nor a bucket such as "
                     "s3://images or s3://images/drawn",
                     c->result_store);
}

// Bucket and prefix have only characters that are the same in a URL.
static enum err read_bucket_name(const struct conf *c, struct settings_bucket *b, struct fault *why)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789.-",
                      more[] = "abcdefghijklmnopqrstuvwxyz0123456789.-"
                               "ABCDEFGHIJKLMNOPQRSTUVWXYZ_/";
    const char *name = c->result_store + strlen("s3://");
    const size_t n = strcspn(name, "/");
    const char *prefix = name[n] ? name + n + 1 : "";
    const size_t length = strlen(prefix);
    struct buf text = {0};
    if (n < 3 || n > 63 || strspn(name, letters) != n || strspn(prefix, more) != length ||
        length > 200 || *prefix == '/' || *prefix == '.' || strstr(prefix, "//") ||
        strstr(prefix, "/."))
        return refuse_bucket(c, why);
    buf_puts(&text, prefix);
    if (length && prefix[length - 1] != '/')
        buf_puts(&text, "/");
    b->name = strndup(name, n);
    b->prefix = length ? buf_take(&text) : strdup("");
    buf_deinit(&text);
    return b->name && b->prefix ? ERR_OK
                                : fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
}

static enum err read_endpoint(const struct conf *c, struct settings_bucket *b, struct fault *why)
{
    struct address a;
    const char *rest = "";
    struct buf url = {0}, host = {0};
    buf_printf(&url, "https://s3.%s.amazonaws.com", c->s3_region);
    const char *text = *c->s3_endpoint ? c->s3_endpoint : url.data ? url.data : "";
    const bool ok = address_parse(text, &a, &rest) && (!*rest || !strcmp(rest, "/")) &&
                    (!strcmp(a.scheme, "https") || !strcmp(a.scheme, "http"));
    buf_clear(&url);
    if (ok) {
        if (a.port == address_default_port(a.scheme))
            a.port = 0;
        address_write_host(&a, &host);
        buf_printf(&url, "%s://%s", a.scheme, host.data ? host.data : "");
        b->host = buf_take(&host);
        b->endpoint = buf_take(&url);
    }
    buf_deinit(&url);
    buf_deinit(&host);
    if (!ok)
        return fault_set(why, ERR_INVALID, "s3-endpoint",
                         "s3-endpoint must be the URL of a server without a path, such as "
                         "https://s3.example.org:9000");
    return b->host && b->endpoint
               ? ERR_OK
               : fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
}

// Whether the file can be read; the store of results reads it again.
static enum err check_s3_key(const struct conf *c, struct fault *why)
{
    enum { LARGEST = 4096 };
    struct buf b = {0};
    if (!*c->s3_key_file)
        return fault_set(why, ERR_INVALID, "s3-key-file",
                         "result-store = s3://... requires s3-key-file, a file with the access "
                         "key's ID and its secret on two lines");
    const enum err err = buf_read_file(&b, c->s3_key_file, LARGEST, why);
    if (b.data)
        explicit_bzero(b.data, b.cap);
    buf_deinit(&b);
    return err;
}

static enum err read_bucket(const struct conf *c, struct settings_bucket *b, struct fault *why)
{
    const bool database = !strcmp(c->result_store, "database");
    const size_t region = strlen(c->s3_region);
    if (database && (*c->s3_endpoint || *c->s3_key_file))
        return fault_set(why, ERR_INVALID, "result-store",
                         "%s is set, but result-store is not a bucket; set result-store to "
                         "s3://BUCKET, or remove %s",
                         *c->s3_endpoint ? "s3-endpoint" : "s3-key-file",
                         *c->s3_endpoint ? "s3-endpoint" : "s3-key-file");
    if (database)
        return ERR_OK;
    if (strncmp(c->result_store, "s3://", 5))
        return refuse_bucket(c, why);
    if (c->store != CONF_STORE_POSTGRES)
        return fault_set(why, ERR_INVALID, "result-store",
                         "result-store = s3://... requires store = postgres");
    if (!region || region > 40 ||
        strspn(c->s3_region, "abcdefghijklmnopqrstuvwxyz0123456789-") != region)
        return fault_set(why, ERR_INVALID, "s3-region",
                         "s3-region: \"%.60s\" is not a region such as us-east-1", c->s3_region);
    enum err err = read_bucket_name(c, b, why);
    if (!err)
        err = read_endpoint(c, b, why);
    return err ? err : check_s3_key(c, why);
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
        err = read_models(c, &out->models, why);
    if (!err)
        err = check_database(c, why);
    if (!err)
        err = read_bucket(c, &out->bucket, why);
    if (!err)
        err = read_tls(c, &out->tls, why);
    if (!err)
        err = read_secret(c, &out->webhook_secret, why);
    if (!err)
        err = proxy_parse(c->trusted_proxies, &out->proxies, why);
    if (!err)
        err = read_origins(c, out, why);
    if (!err)
        err = read_public_url(c, out, why);
    if (!err)
        err = read_hosts(c, conf_is_local(host), out, why);
    return err;
}

void settings_deinit(struct settings *s)
{
    auth_destroy(&s->auth);
    http_tls_destroy(&s->tls);
    models_file_deinit(&s->models);
    free(s->origins.text);
    free(s->hosts.text);
    free(s->public_url);
    free(s->webhook_secret);
    free(s->bucket.endpoint);
    free(s->bucket.host);
    free(s->bucket.name);
    free(s->bucket.prefix);
    memset(s, 0, sizeof *s);
}

struct router_web settings_web(const struct settings *s)
{
    return (struct router_web){
        .cors = s->origins.item,
        .hosts = s->any_host ? NULL : s->hosts.item,
        .proxies = &s->proxies,
        .public_origin = *s->public_url ? &s->public_origin : NULL,
        .public_url = s->public_url,
        .public_prefix = s->public_prefix,
    };
}
