// The certificate for new TLS connections. It can be replaced while the server runs; an old one
// lives until the connections that may use it are closed. Loop thread.
#include "http_impl.h"

#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>

enum { TLS_MAX_CHAIN = 16 };

struct http_tls {
    struct http_tls *newer;
    int connections; // that began while this was the newest
    gnutls_pcert_st chain[TLS_MAX_CHAIN];
    unsigned count;
    gnutls_privkey_t key;
};

// ---- reading ----------------------------------------------------------------------------------

static enum err tls_fault(const char *option, int code, const char *what, struct fault *why)
{
    return fault_set(why, ERR_INVALID, option, "%s: %s: %s", option, what, gnutls_strerror(code));
}

static bool tls_same_key(const struct http_tls *t)
{
    unsigned char a[64], b[64];
    size_t na = sizeof a, nb = sizeof b;
    gnutls_pubkey_t of_key;
    bool same = false;
    if (gnutls_pubkey_init(&of_key))
        return false;
    if (!gnutls_pubkey_import_privkey(of_key, t->key, 0, 0) &&
        !gnutls_pubkey_get_key_id(of_key, GNUTLS_KEYID_USE_SHA256, a, &na) &&
        !gnutls_pubkey_get_key_id(t->chain[0].pubkey, GNUTLS_KEYID_USE_SHA256, b, &nb))
        same = na == nb && !memcmp(a, b, na);
    gnutls_pubkey_deinit(of_key);
    return same;
}

static enum err tls_read(struct http_tls *t, const char *cert, const char *key, struct fault *why)
{
    const gnutls_datum_t c = {(unsigned char *)cert, (unsigned)strlen(cert)};
    const gnutls_datum_t k = {(unsigned char *)key, (unsigned)strlen(key)};
    unsigned n = TLS_MAX_CHAIN;
    int code = gnutls_pcert_list_import_x509_raw(t->chain, &n, &c, GNUTLS_X509_FMT_PEM, 0);
    if (code < 0)
        return tls_fault("tls-cert", code, "cannot read a PEM certificate chain", why);
    t->count = n;
    code = gnutls_privkey_init(&t->key);
    if (!code)
        code = gnutls_privkey_import_x509_raw(t->key, &k, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (code < 0)
        return tls_fault("tls-key", code, "cannot read a PEM private key", why);
    if (!tls_same_key(t))
        return fault_set(why, ERR_INVALID, "tls-key",
                         "tls-key: the key does not belong to the certificate in tls-cert");
    return ERR_OK;
}

enum err http_tls_create(const char *cert, const char *key, struct http_tls **out,
                         struct fault *why)
{
    struct http_tls *t = *out = calloc(1, sizeof *t);
    const enum err err = t ? tls_read(t, cert, key, why)
                           : fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    if (err)
        http_tls_destroy(out);
    return err;
}

void http_tls_destroy(struct http_tls **t)
{
    if (!*t)
        return;
    for (unsigned i = 0; i < (*t)->count; i++)
        gnutls_pcert_deinit(&(*t)->chain[i]);
    if ((*t)->key)
        gnutls_privkey_deinit((*t)->key);
    free(*t);
    *t = NULL;
}

// ---- in force ---------------------------------------------------------------------------------

// The library's callback has no argument; a process has one server.
static struct http_tls *tls_newest;

int http_tls_choose(gnutls_session_t session, const gnutls_datum_t *ca, int n,
                    const gnutls_pk_algorithm_t *algorithms, int algorithm_count,
                    gnutls_pcert_st **chain, unsigned *count, gnutls_privkey_t *key)
{
    *chain = tls_newest->chain;
    *count = tls_newest->count;
    *key = tls_newest->key;
    return 0;
}

// A connection uses the certificate that was the newest when it began, or a later one.
static void tls_free_old(struct http_server *s)
{
    while (s->tls != tls_newest && !s->tls->connections) {
        struct http_tls *old = s->tls;
        s->tls = old->newer;
        http_tls_destroy(&old);
    }
}

void http_use_tls(struct http_server *s, struct http_tls **tls)
{
    if (s->tls)
        tls_newest->newer = *tls;
    else
        s->tls = *tls;
    tls_newest = *tls;
    *tls = NULL;
    tls_free_old(s);
}

struct http_tls *http_tls_begin(struct http_server *s)
{
    if (s->tls)
        tls_newest->connections++;
    return s->tls ? tls_newest : NULL;
}

void http_tls_end(struct http_server *s, struct http_tls *t)
{
    if (!t)
        return;
    t->connections--;
    tls_free_old(s);
}

void http_tls_close(struct http_server *s)
{
    while (s->tls) {
        struct http_tls *t = s->tls;
        s->tls = t->newer;
        http_tls_destroy(&t);
    }
    tls_newest = NULL;
}
