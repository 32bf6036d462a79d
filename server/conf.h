// The configuration: one option table for the file, the environment, the flags, --help and the
// tables in docs/configuration.md. Later sources override earlier ones: default, file, environment,
// flag.
#ifndef IMAGEND_CONF_H
#define IMAGEND_CONF_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>

struct buf;

struct conf {
    char *config, *listen, *model, *models_file, *model_aliases, *variant, *text_encoder, *lora,
        *lora_choices, *device, *dtype, *weights, *tune, *cache_dir;
    int slots;
    double text_cache, memory_limit; // bytes, like all sizes
    char *data_dir;
    int store; // CONF_STORE_*
    char *database, *database_password_file, *replica_name;
    char *result_store, *s3_endpoint, *s3_region, *s3_key_file;
    int queue_limit, queue_limit_per_key, running_limit_per_key;
    double keep_seconds, keep_bytes, input_bytes;
    bool provenance;
    int keep_jobs;
    char *keys_file;
    bool allow_open;
    char *tls_cert, *tls_key, *host_names, *cors_origins, *public_url, *trusted_proxies;
    char *webhook_allow, *webhook_secret_file;
    double max_body, max_header;
    int max_connections;
    double receive_timeout, idle_timeout, send_timeout, drain_delay, drain_timeout;
    int log_level, log_format;
    char *trace;
};

enum { CONF_STORE_SQLITE, CONF_STORE_MEMORY, CONF_STORE_POSTGRES };

// Sets every option from defaults, file, environment and argv (flags only). *help: --help was given
// and nothing was set. Errors: INVALID with the option in why->param.
enum err conf_load(struct conf *c, int argc, char **argv, bool *help, struct fault *why);
void conf_deinit(struct conf *c);

// Checks that each IMAGEND_NAME in the environment is an option. Not used at startup, because an
// orchestrator may set variables with the same prefix. Errors: INVALID.
enum err conf_check_environment(struct fault *why);

// Parses the text of a configuration file into c. Errors: INVALID, naming the line.
enum err conf_parse(struct conf *c, const char *text, size_t n, struct fault *why);
// The configuration that conf_reload would produce, for checking it first. Owner: out borrows from
// both.
void conf_preview(const struct conf *running, const struct conf *fresh, struct conf *out);
// Applies the options that may change at run time; *ignored names (comma-separated) changed options
// that need a restart.
void conf_reload(struct conf *running, struct conf *fresh, char *ignored, size_t n);

// Parses the option `listen`: "host:port", "[v6]:port", ":port". Errors: INVALID.
enum err conf_listen(const struct conf *c, char *host, size_t n, int *port, struct fault *why);
// Whether only this machine can reach the listening address.
bool conf_is_local(const char *host);

// Describes option i of the table, from 0; false after the last.
struct conf_about {
    const char *name, *value, *def, *help; // value: placeholder in the help, NULL with choices
    const char *const *choices;            // NULL: any value
    bool flag, reload, in_file;
};
bool conf_about(int i, struct conf_about *out);

void conf_markdown(struct buf *out); // for docs/configuration.md
void conf_file(struct buf *out);     // config/imagend.conf: the defaults
// In the format of a configuration file, with the paths of secrets but not the secrets.
void conf_show(const struct conf *c, struct buf *out);

#endif
