// The option table and its three sources. Called by main before anything else runs, and again on
// reload. Knows nothing about the effects of options.
#include "conf.h"

#include "buf.h"
#include "program.h"
#include "text.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum conf_type { CONF_TEXT, CONF_INT, CONF_BYTES, CONF_SECONDS, CONF_BOOL, CONF_CHOICE };
enum conf_flags { CONF_RELOAD = 1, CONF_NOT_IN_FILE = 2 };

struct conf_option {
    const char *name;
    enum conf_type type;
    size_t offset;
    const char *def;
    double min, max;
    unsigned flags;
    const char *const *choices;
    const char *value; // placeholder in the help
    const char *help;
};

static const char *const store_names[] = {"sqlite", "memory", "postgres", NULL};
static const char *const level_names[] = {"error", "warn", "info", "debug", NULL};
static const char *const format_names[] = {"text", "json", NULL};

#define O(field) offsetof(struct conf, field)
#define TEXT(name, field, def, flags, value, help)                                                 \
    {name, CONF_TEXT, O(field), def, 0, 0, flags, NULL, value, help}
#define NUM(name, type, field, def, min, max, flags, help)                                         \
    {name,  type, O(field),                                                                        \
     def,   min,  max,                                                                             \
     flags, NULL, type == CONF_BYTES ? "BYTES" : type == CONF_SECONDS ? "SECONDS" : "N",           \
     help}
#define CHOICE(name, field, def, flags, list, help)                                                \
    {name, CONF_CHOICE, O(field), def, 0, 0, flags, list, NULL, help}
#define R CONF_RELOAD

static const struct conf_option options[] = {
    TEXT("config", config, "", CONF_NOT_IN_FILE, "FILE", "file with these options"),
    TEXT("listen", listen, "127.0.0.1:8080", 0, "HOST:PORT", "address to listen on"),
    TEXT("model", model, "", 0, "DIR",
         "cascade folder, or pipeline folders separated by commas; empty: the default model"),
    TEXT("models-file", models_file, "", 0, "FILE",
         "several models, one section each, instead of model; see docs/models.md"),
    TEXT("model-aliases", model_aliases, "", R, "NAME,...",
         "additional names of the default model that the OpenAI endpoints accept"),
    TEXT("variant", variant, "", 0, "NAME", "weight file variant, such as fp16"),
    TEXT("text-encoder", text_encoder, "", 0, "FILE",
         "GGUF file with a T5 encoder to use instead of the model's"),
    TEXT("lora", lora, "", 0, "FILE[:SCALE],...",
         "LoRA files in diffusers' format, which change the networks that they fit"),
    TEXT("lora-choices", lora_choices, "", 0, "FILE[:SCALE],...",
         "LoRA files that are applied only to images whose request names them"),
    TEXT("device", device, "", 0, "NAME,...",
         "Vulkan devices by index or name; empty: the best one"),
    TEXT("dtype", dtype, "", 0, "f32|f16",
         "storage type of weights and activations; empty: chosen for the device"),
    TEXT(
        "weights", weights, "", 0, "f32|f16|bf16|q8|q4",
        "storage format of the weights of matrix products; empty: as dtype, or as in text-encoder"),
    TEXT("tune", tune, "auto", 0, "auto|on|off",
         "measure which GPU programs are fastest; auto: for seconds, and not on software devices"),
    TEXT("cache-dir", cache_dir, "", 0, "DIR",
         "folder of compiled pipelines; empty: ~/.cache/imagend"),
    NUM("text-cache", CONF_BYTES, text_cache, "0", 0, 1e15, 0,
        "encoded prompts to keep in cache-dir, by size; 0: none"),
    NUM("slots", CONF_INT, slots, "0", 0, 256, 0,
        "images in progress per device; 0: 4 on software devices, 8 on others"),
    NUM("memory-limit", CONF_BYTES, memory_limit, "0", 0, 1e15, 0,
        "device memory to use, in which networks take turns; 0: most of what the device has free"),
    CHOICE("store", store, "sqlite", 0, store_names, "where jobs and results are stored"),
    TEXT("data-dir", data_dir, "", 0, "DIR",
         "folder of the SQLite store; empty: ~/.local/state/imagend"),
    TEXT("database", database, "", 0, "CONNECTION",
         "PostgreSQL database of the postgres store: a libpq connection string or URI without a "
         "password"),
    TEXT("database-password-file", database_password_file, "", 0, "FILE",
         "password for the database, reread for each connection; empty: libpq's PGPASSFILE"),
    TEXT("replica-name", replica_name, "", 0, "NAME",
         "name of this process in the database and its logs; empty: the host name"),
    TEXT("result-store", result_store, "database", 0, "database|s3://BUCKET[/PREFIX]",
         "where the postgres store keeps images: in the database, or as objects in a bucket"),
    TEXT("s3-endpoint", s3_endpoint, "", 0, "URL",
         "S3-compatible server of result-store; empty: Amazon's in s3-region"),
    TEXT("s3-region", s3_region, "us-east-1", 0, "NAME", "region for which requests are signed"),
    TEXT("s3-key-file", s3_key_file, "", 0, "FILE",
         "access key of result-store, its ID and its secret on two lines; reread when refused"),
    NUM("queue-limit", CONF_INT, queue_limit, "256", 1, 1000000, R, "images that may wait"),
    NUM("queue-limit-per-key", CONF_INT, queue_limit_per_key, "128", 1, 1000000, R,
        "images that may wait per API key"),
    NUM("running-limit-per-key", CONF_INT, running_limit_per_key, "0", 0, 1000000, R,
        "images in progress per API key; 0: no limit"),
    NUM("keep-seconds", CONF_SECONDS, keep_seconds, "3600", 1, 1e9, R,
        "time for which results are kept"),
    NUM("keep-jobs", CONF_INT, keep_jobs, "10000", 1, 10000000, R,
        "maximum number of finished jobs to keep"),
    NUM("keep-bytes", CONF_BYTES, keep_bytes, "2G", 1, 1e15, R, "maximum size of all kept results"),
    NUM("input-bytes", CONF_BYTES, input_bytes, "512M", 1, 1e15, R,
        "maximum size of the input images of all jobs, and of those being uploaded"),
    TEXT("keys-file", keys_file, "", R, "FILE", "path of the keys file; empty: no authentication"),
    {"provenance", CONF_BOOL, O(provenance), "true", 0, 0, 0, NULL, "true|false",
     "mark images as generated in their XMP metadata (DigitalSourceType)"},
    {"allow-open", CONF_BOOL, O(allow_open), "false", 0, 0, 0, NULL, "true|false",
     "allow listening on other addresses than loopback without API keys"},
    TEXT("tls-cert", tls_cert, "", R, "FILE", "PEM certificate chain; enables HTTPS"),
    TEXT("tls-key", tls_key, "", R, "FILE", "PEM private key of the certificate"),
    TEXT("host-names", host_names, "", R, "NAME,...",
         "host names accepted in addition to localhost, IP addresses and the host of public-url; "
         "empty: any, unless the service listens on loopback without keys"),
    TEXT("cors-origins", cors_origins, "", R, "ORIGIN,...",
         "web origins allowed to call the API; *: any"),
    TEXT("public-url", public_url, "", R, "URL",
         "this service's URL for clients, for result URLs; empty: taken from each request"),
    TEXT("trusted-proxies", trusted_proxies, "loopback", R, "NETWORK,...",
         "proxies whose X-Forwarded-* and Forwarded headers count: addresses, networks, loopback, "
         "private"),
    TEXT("webhook-allow", webhook_allow, "", 0, "HOST,...",
         "hosts that webhooks may call, also *.example.com; empty: webhooks are disabled"),
    TEXT("webhook-secret-file", webhook_secret_file, "", R, "FILE",
         "secret that signs webhook deliveries"),
    NUM("max-body", CONF_BYTES, max_body, "1M", 1024, 1e9, 0, "maximum size of a request body"),
    NUM("max-header", CONF_BYTES, max_header, "8K", 1024, 65536, 0,
        "maximum size of a request's headers"),
    NUM("max-connections", CONF_INT, max_connections, "12000", 1, 1000000, 0,
        "maximum number of open connections; raises the open-file limit"),
    NUM("receive-timeout", CONF_SECONDS, receive_timeout, "30", 0.1, 3600, 0,
        "time allowed for a request to arrive; each 256 KB of images adds a second"),
    NUM("idle-timeout", CONF_SECONDS, idle_timeout, "75", 0.1, 86400, 0,
        "close idle connections after this long; use more than the load balancer's own"),
    NUM("send-timeout", CONF_SECONDS, send_timeout, "60", 1, 3600, 0,
        "close the connection after this long without send progress"),
    NUM("drain-delay", CONF_SECONDS, drain_delay, "0", 0, 3600, 0,
        "delay between SIGTERM and refusing connections, for load balancers"),
    NUM("drain-timeout", CONF_SECONDS, drain_timeout, "30", 0, 3600, 0,
        "time that running synchronous requests get to finish after drain-delay"),
    CHOICE("log-level", log_level, "info", R, level_names,
           "log level; prompts are logged at debug only"),
    CHOICE("log-format", log_format, "text", R, format_names, "log format"),
    TEXT("trace", trace, "", 0, "FILE",
         "write the time of requests, waits, uploads, stages, steps and forward passes for "
         "ui.perfetto.dev, complete when the service has stopped; empty: no trace"),
};
enum { OPTIONS = sizeof options / sizeof options[0] };

// ---- one value ----------------------------------------------------------------------------------

static enum err refuse(struct fault *why, const struct conf_option *o, const char *s,
                       const char *want)
{
    return fault_set(why, ERR_INVALID, o->name, "%s: \"%.60s\" is not %s", o->name, s, want);
}

static enum err refuse_choice(struct fault *why, const struct conf_option *o, const char *s)
{
    char list[200] = "";
    size_t n = 0;
    for (int i = 0; o->choices[i] && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "",
                              *o->choices[i] ? o->choices[i] : "empty");
    return fault_set(why, ERR_INVALID, o->name, "%s must be one of %s, not \"%.60s\"", o->name,
                     list, s);
}

static enum err set_number(const struct conf_option *o, const char *s, char *at, struct fault *why)
{
    static const char units[] = "KMGT";
    char *end;
    double v = strtod(s, &end);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (o->type == CONF_BYTES && unit) {
        v *= pow(1024, (double)(unit - units) + 1);
        end++;
    }
    if (end == s || *end || !isfinite(v) || (o->type == CONF_INT && v != floor(v)))
        return refuse(why, o, s, o->type == CONF_BYTES ? "a size such as 512M" : "a number");
    if (v < o->min || v > o->max)
        return fault_set(why, ERR_INVALID, o->name, "%s must be from %.15g to %.15g, not %s",
                         o->name, o->min, o->max, s);
    if (o->type == CONF_INT)
        *(int *)(void *)at = (int)v;
    else
        *(double *)(void *)at = v;
    return ERR_OK;
}

static enum err set_value(struct conf *c, const struct conf_option *o, const char *s,
                          struct fault *why)
{
    char *at = (char *)c + o->offset;
    switch (o->type) {
    case CONF_TEXT: {
        char *copy = strdup(s);
        if (!copy)
            return fault_set(why, ERR_NO_MEMORY, o->name, "%s", err_text(ERR_NO_MEMORY));
        free(*(char **)(void *)at);
        *(char **)(void *)at = copy;
        return ERR_OK;
    }
    case CONF_BOOL:
        if (strcmp(s, "true") && strcmp(s, "false"))
            return refuse(why, o, s, "true or false");
        *(bool *)at = *s == 't';
        return ERR_OK;
    case CONF_CHOICE:
        for (int i = 0; o->choices[i]; i++) {
            if (!strcmp(o->choices[i], s)) {
                *(int *)(void *)at = i;
                return ERR_OK;
            }
        }
        return refuse_choice(why, o, s);
    default: return set_number(o, s, at, why);
    }
}

static const struct conf_option *find_option(const char *name, size_t n)
{
    for (int i = 0; i < OPTIONS; i++)
        if (strlen(options[i].name) == n && !strncmp(options[i].name, name, n))
            return &options[i];
    return NULL;
}

// ---- the three sources --------------------------------------------------------------------------

static const char env_prefix[] = "IMAGEND_";
enum { ENV_PREFIX = sizeof env_prefix - 1, ENV_NAME = 64 };

static void env_name(const struct conf_option *o, char name[ENV_NAME])
{
    size_t k = (size_t)snprintf(name, ENV_NAME, "%s%s", env_prefix, o->name);
    while (k-- > ENV_PREFIX)
        name[k] = name[k] == '-' ? '_' : (char)toupper((unsigned char)name[k]);
}

static void flag_name(const struct conf_option *o, char name[ENV_NAME])
{
    snprintf(name, ENV_NAME, "--%s", o->name);
}

static void file_name(const struct conf_option *o, char name[ENV_NAME])
{
    snprintf(name, ENV_NAME, "%s", o->name);
}

// The option that has this name elsewhere, or NULL. name may begin with "--".
static const struct conf_option *known_elsewhere(const char *name)
{
    static const char *const listen[] = {"address", "bind", "host", "port"};
    for (size_t i = 0; i < sizeof listen / sizeof *listen; i++)
        if (!strcmp(name + 2 * !strncmp(name, "--", 2), listen[i]))
            return find_option("listen", strlen("listen"));
    return NULL;
}

// Refuses an unknown option name and suggests the nearest. given may include '=' and a value.
static enum err refuse_name(struct fault *why, const char *given,
                            void (*spell)(const struct conf_option *o, char name[ENV_NAME]))
{
    char name[ENV_NAME], best[ENV_NAME] = "", candidate[ENV_NAME];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(given, "="), given);
    const struct conf_option *other = known_elsewhere(name);
    if (other)
        spell(other, best);
    for (int i = 0; !other && i < OPTIONS; i++) {
        spell(&options[i], candidate);
        if (text_nearer(name, candidate, *best ? best : NULL) == candidate)
            memcpy(best, candidate, sizeof best);
    }
    if (*best)
        return fault_set(why, ERR_INVALID, name, "unknown option \"%s\"; did you mean \"%s\"?",
                         name, best);
    return fault_set(why, ERR_INVALID, name,
                     "unknown option \"%s\"; imagend serve --help lists the options", name);
}

static enum err parse_line(struct conf *c, char *line, bool seen[OPTIONS], struct fault *why)
{
    char *value = strchr(line, '=');
    if (!value)
        return fault_set(why, ERR_INVALID, "", "expected \"name = value\"");
    *value++ = 0;
    const char *name = text_trim(line);
    const struct conf_option *o = find_option(name, strlen(name));
    if (!o || o->flags & CONF_NOT_IN_FILE)
        return refuse_name(why, name, file_name);
    if (seen[o - options])
        return fault_set(why, ERR_INVALID, name, "%s is set twice", name);
    seen[o - options] = true;
    return set_value(c, o, text_trim(value), why);
}

enum err conf_parse(struct conf *c, const char *text, size_t n, struct fault *why)
{
    bool seen[OPTIONS] = {false};
    int number = 0;
    for (size_t at = 0; at < n;) {
        char line[1024];
        const char *end = memchr(text + at, '\n', n - at);
        const size_t len = end ? (size_t)(end - (text + at)) : n - at;
        number++;
        if (len >= sizeof line || memchr(text + at, 0, len))
            return fault_set(why, ERR_INVALID, "config", "line %d is too long or not text", number);
        memcpy(line, text + at, len);
        line[len] = 0;
        at += len + 1;
        char *s = text_trim(line);
        if (!*s || *s == '#')
            continue;
        struct fault inner = {0};
        const enum err err = parse_line(c, s, seen, &inner);
        if (err)
            return fault_set(why, err, inner.param, "line %d: %s", number, inner.msg);
    }
    return ERR_OK;
}

static enum err load_file(struct conf *c, struct fault *why)
{
    struct buf b = {0};
    struct fault inner = {0};
    enum err err = buf_read_file(&b, c->config, 1 << 20, why);
    if (!err && b.len)
        err = conf_parse(c, b.data, b.len, &inner);
    if (inner.code)
        fault_set(why, err, inner.param, "%.100s: %s", c->config, inner.msg);
    buf_deinit(&b);
    return err;
}

static enum err load_environment(struct conf *c, struct fault *why)
{
    for (int i = 0; i < OPTIONS; i++) {
        char name[ENV_NAME];
        env_name(&options[i], name);
        const char *value = getenv(name);
        const enum err err = value ? set_value(c, &options[i], value, why) : ERR_OK;
        if (err)
            return err;
    }
    return ERR_OK;
}

enum err conf_check_environment(struct fault *why)
{
    // Variables for developers, read by the engine itself; see CONTRIBUTING.md.
    static const char *const diagnostic[] = {"IMAGEND_KERNEL=", "IMAGEND_VALIDATION="};
    for (char **e = environ; *e; e++) {
        const size_t n = strcspn(*e, "=");
        bool known = strncmp(*e, env_prefix, ENV_PREFIX) != 0;
        for (size_t i = 0; i < sizeof diagnostic / sizeof *diagnostic; i++)
            known = known || !strncmp(*e, diagnostic[i], strlen(diagnostic[i]));
        for (int i = 0; i < OPTIONS && !known; i++) {
            char name[ENV_NAME];
            env_name(&options[i], name);
            known = strlen(name) == n && !strncmp(*e, name, n);
        }
        if (!known)
            return refuse_name(why, *e, env_name);
    }
    return ERR_OK;
}

// With only_config, only --config is read, because its file must be loaded before the other flags.
static enum err load_flags(struct conf *c, int argc, char **argv, bool only_config, bool *help,
                           struct fault *why)
{
    for (int i = 0; i < argc; i++) {
        const char *name = argv[i] + 2, *value = strchr(argv[i], '=');
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            *help = true;
            return ERR_OK;
        }
        if (strncmp(argv[i], "--", 2))
            return fault_set(why, ERR_INVALID, "", "unexpected argument \"%.60s\"", argv[i]);
        const struct conf_option *o =
            find_option(name, value ? (size_t)(value - name) : strlen(name));
        if (!o)
            return refuse_name(why, argv[i], flag_name);
        if (!value && o->type == CONF_BOOL)
            value = "true";
        else if (!value && ++i == argc)
            return fault_set(why, ERR_INVALID, o->name, "--%s needs a value", o->name);
        else
            value = value ? value + 1 : argv[i];
        if (only_config && strcmp(o->name, "config"))
            continue;
        const enum err err = set_value(c, o, value, why);
        if (err)
            return err;
    }
    return ERR_OK;
}

// Sets the defaults that depend on the machine and the user.
static enum err set_defaults(struct conf *c, struct fault *why)
{
    char folder[4096];
    enum err err = ERR_OK;
    if (!*c->model && !*c->models_file)
        err = set_value(c, find_option("model", 5), program_default_model(), why);
    if (err || *c->data_dir)
        return err;
    if (program_user_folder("XDG_STATE_HOME", ".local/state", folder, sizeof folder))
        return set_value(c, find_option("data-dir", 8), folder, why);
    if (c->store != CONF_STORE_SQLITE)
        return ERR_OK;
    return fault_set(
        why, ERR_INVALID, "data-dir",
        "data-dir has no default without $XDG_STATE_HOME or $HOME: set it to a folder, "
        "or store to memory");
}

enum err conf_load(struct conf *c, int argc, char **argv, bool *help, struct fault *why)
{
    enum err err = ERR_OK;
    *help = false;
    memset(c, 0, sizeof *c);
    for (int i = 0; i < OPTIONS && !err; i++)
        err = set_value(c, &options[i], options[i].def, why);
    if (!err && getenv("IMAGEND_CONFIG"))
        err = set_value(c, find_option("config", 6), getenv("IMAGEND_CONFIG"), why);
    if (!err)
        err = load_flags(c, argc, argv, true, help, why);
    if (!err && *c->config && !*help)
        err = load_file(c, why);
    if (!err)
        err = load_environment(c, why);
    if (!err)
        err = load_flags(c, argc, argv, false, help, why);
    if (!err && !*help)
        err = set_defaults(c, why);
    return err;
}

void conf_deinit(struct conf *c)
{
    for (int i = 0; i < OPTIONS; i++)
        if (options[i].type == CONF_TEXT)
            free(*(char **)(void *)((char *)c + options[i].offset));
    memset(c, 0, sizeof *c);
}

static size_t value_size(const struct conf_option *o)
{
    switch (o->type) {
    case CONF_TEXT: return sizeof(char *);
    case CONF_BOOL: return sizeof(bool);
    case CONF_BYTES:
    case CONF_SECONDS: return sizeof(double);
    default: return sizeof(int);
    }
}

void conf_preview(const struct conf *running, const struct conf *fresh, struct conf *out)
{
    *out = *running;
    for (int i = 0; i < OPTIONS; i++) {
        const struct conf_option *o = &options[i];
        if (o->flags & CONF_RELOAD)
            memcpy((char *)out + o->offset, (const char *)fresh + o->offset, value_size(o));
    }
}

void conf_reload(struct conf *running, struct conf *fresh, char *ignored, size_t n)
{
    ignored[0] = 0;
    for (int i = 0; i < OPTIONS; i++) {
        const struct conf_option *o = &options[i];
        char *a = (char *)running + o->offset, *b = (char *)fresh + o->offset;
        char swap[sizeof(double)];
        const size_t size = value_size(o);
        const bool same = o->type == CONF_TEXT ? !strcmp(*(char **)(void *)a, *(char **)(void *)b)
                                               : !memcmp(a, b, size);
        const size_t len = strlen(ignored);
        if (same)
            continue;
        if (!(o->flags & CONF_RELOAD)) {
            snprintf(ignored + len, n - len, "%s%s", len ? ", " : "", o->name);
            continue;
        }
        // Swapped, so that conf_deinit(fresh) frees the old text.
        memcpy(swap, a, size);
        memcpy(a, b, size);
        memcpy(b, swap, size);
    }
}

// ---- addresses ----------------------------------------------------------------------------------

enum err conf_listen(const struct conf *c, char *host, size_t n, int *port, struct fault *why)
{
    const char *s = c->listen, *colon = strrchr(s, ':');
    char *end;
    const long p = colon ? strtol(colon + 1, &end, 10) : -1;
    if (!colon || !colon[1] || *end || p < 0 || p > 65535)
        return fault_set(why, ERR_INVALID, "listen", "listen: \"%.60s\" is not HOST:PORT", s);
    size_t len = (size_t)(colon - s);
    if (len > 1 && s[0] == '[' && s[len - 1] == ']') {
        s++;
        len -= 2;
    }
    if (len)
        snprintf(host, n, "%.*s", (int)len, s);
    else
        snprintf(host, n, "0.0.0.0");
    *port = (int)p;
    return ERR_OK;
}

bool conf_is_local(const char *host)
{
    return !strncmp(host, "127.", 4) || !strcmp(host, "::1") || !strcasecmp(host, "localhost");
}

// ---- for people ---------------------------------------------------------------------------------

bool conf_about(int i, struct conf_about *out)
{
    if (i < 0 || i >= OPTIONS)
        return false;
    const struct conf_option *o = &options[i];
    *out = (struct conf_about){
        .name = o->name,
        .value = o->value,
        .def = o->def,
        .help = o->help,
        .choices = o->choices,
        .flag = o->type == CONF_BOOL,
        .reload = o->flags & CONF_RELOAD,
        .in_file = !(o->flags & CONF_NOT_IN_FILE),
    };
    return true;
}

static void add_choices(const struct conf_option *o, struct buf *out)
{
    if (!o->choices)
        return;
    buf_puts(out, " (");
    for (int i = 0; o->choices[i]; i++)
        buf_printf(out, "%s%s", i ? ", " : "", o->choices[i]);
    buf_puts(out, ")");
}

void conf_markdown(struct buf *out)
{
    buf_puts(out, "| option | default | reload | meaning |\n| --- | --- | --- | --- |\n");
    for (int i = 0; i < OPTIONS; i++) {
        const struct conf_option *o = &options[i];
        buf_printf(out, "| `%s` | ", o->name);
        buf_printf(out, *o->def ? "`%s`" : "%s", o->def);
        buf_printf(out, " | %s | %s", o->flags & CONF_RELOAD ? "yes" : "", o->help);
        add_choices(o, out);
        buf_puts(out, " |\n");
    }
}

void conf_file(struct buf *out)
{
    buf_puts(
        out,
        "# Every option of `imagend serve` with its default; `imagend serve --config FILE` reads a "
        "file\n# like this one. Environment variables (IMAGEND_NAME) and flags (--name) override "
        "it. On SIGHUP\n# the service rereads the options marked (reload). Times are in seconds, "
        "sizes in "
        "bytes; sizes\n# accept the suffixes K, M, G and T. Lists are separated by commas.\n");
    for (int i = 0; i < OPTIONS; i++) {
        const struct conf_option *o = &options[i];
        if (o->flags & CONF_NOT_IN_FILE)
            continue;
        buf_printf(out, "\n# %s", o->help);
        add_choices(o, out);
        buf_printf(out, "%s\n#%s =%s%s\n", o->flags & CONF_RELOAD ? " (reload)" : "", o->name,
                   *o->def ? " " : "", o->def);
    }
}

void conf_show(const struct conf *c, struct buf *out)
{
    for (int i = 0; i < OPTIONS; i++) {
        const struct conf_option *o = &options[i];
        const char *at = (const char *)c + o->offset;
        if (o->flags & CONF_NOT_IN_FILE)
            continue;
        buf_printf(out, "%s = ", o->name);
        switch (o->type) {
        case CONF_TEXT: buf_puts(out, *(char *const *)(const void *)at); break;
        case CONF_BOOL: buf_puts(out, *(const bool *)at ? "true" : "false"); break;
        case CONF_INT: buf_printf(out, "%d", *(const int *)(const void *)at); break;
        case CONF_CHOICE: buf_puts(out, o->choices[*(const int *)(const void *)at]); break;
        default: buf_printf(out, "%.15g", *(const double *)(const void *)at); break;
        }
        buf_puts(out, "\n");
    }
}
