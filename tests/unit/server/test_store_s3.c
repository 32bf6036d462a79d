// Images as objects over a store of this test, which records its calls, and a server of this test,
// which answers when it is told to. Tests with a real bucket are in tests/api/test_s3.py.
#include "store_s3.h"

#include "clock.h"
#include "log.h"
#include "sha256.h"
#include "test.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

static uv_loop_t loop;
static char key_file[] = "/tmp/imagend-test-s3-key-XXXXXX";

// ---- the store of jobs
// ----------------------------------------------------------------------------

static struct base {
    struct store store;
    char log[400]; // "drawn0 finish ..."
    int room;      // of the last call
    bool closed;
} base;

static void base_call(struct store *s, struct store_call *c)
{
    static const char *const names[STORE_OPS] = {
        [STORE_ACCEPT] = "accept", [STORE_CLAIM] = "claim",   [STORE_DRAWN] = "drawn",
        [STORE_FINISH] = "finish", [STORE_REMOVE] = "remove", [STORE_RELEASE] = "release",
        [STORE_EXPIRE] = "expire",
    };
    const size_t n = strlen(base.log);
    if (names[c->op])
        snprintf(base.log + n, sizeof base.log - n, "%s%d ", names[c->op], c->picture);
    base.room = c->room;
    if (c->op == STORE_AGE)
        fault_set(&c->why, ERR_BUSY, "store", "no sweep here");
    if (c->op == STORE_REMOVE)
        store_call_add(c, job_snapshot(c->job));
    c->done(c);
}

static void base_close(struct store *s, void (*closed)(void *ctx), void *ctx)
{
    base.closed = true;
    if (closed)
        closed(ctx);
}

static const struct store_ops base_ops = {.name = "base", .call = base_call, .close = base_close};

// ---- the server
// -----------------------------------------------------------------------------------

static struct server {
    uv_tcp_t listener;
    int port, requests, deleted;
    const char *hold; // requests with this text wait
    uv_stream_t *held;
    int status;
} server;

static void on_gone(uv_handle_t *h)
{
    free(h->data);
    free(h);
}

static void on_sent(uv_write_t *w, int status)
{
    free(w);
}

static void respond(uv_stream_t *to)
{
    static char text[3][80];
    static int at;
    char *line = text[at++ % 3];
    const int n = snprintf(line, 80, "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", server.status);
    uv_buf_t b = uv_buf_init(line, (unsigned)n);
    uv_write(calloc(1, sizeof(uv_write_t)), to, &b, 1, on_sent);
}

struct heard {
    char text[1 << 14];
    size_t n;
};

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *b)
{
    struct heard *heard = h->data;
    *b = uv_buf_init(heard->text + heard->n, (unsigned)(sizeof heard->text - 1 - heard->n));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct heard *heard = s->data;
    if (n < 0) {
        uv_close((uv_handle_t *)s, on_gone);
        return;
    }
    heard->n += (size_t)n;
    heard->text[heard->n] = 0;
    const char *body = strstr(heard->text, "\r\n\r\n"),
               *length = strstr(heard->text, "ontent-Length: ");
    if (!body || heard->n < (size_t)(body + 4 - heard->text) +
                                (length && length < body ? (size_t)atoi(length + 15) : 0))
        return;
    server.requests++;
    server.deleted += !strncmp(heard->text, "DELETE ", 7);
    CHECK(strstr(heard->text, "Authorization: AWS4-HMAC-SHA256 Credential=id/"));
    CHECK(!strstr(heard->text, "secret"));
    heard->n = 0;
    if (server.hold && strstr(heard->text, server.hold))
        server.held = s;
    else
        respond(s);
}

static void on_client(uv_stream_t *listener, int status)
{
    uv_tcp_t *c = calloc(1, sizeof *c);
    uv_tcp_init(&loop, c);
    c->data = calloc(1, sizeof(struct heard));
    uv_accept(listener, (uv_stream_t *)c);
    uv_read_start((uv_stream_t *)c, on_alloc, on_read);
}

static void listen_there(void)
{
    struct sockaddr_in a;
    int n = sizeof a;
    uv_tcp_init(&loop, &server.listener);
    uv_ip4_addr("127.0.0.1", server.port, &a);
    CHECK_INT(uv_tcp_bind(&server.listener, (struct sockaddr *)&a, 0), 0);
    CHECK_INT(uv_listen((uv_stream_t *)&server.listener, 16, on_client), 0);
    uv_tcp_getsockname(&server.listener, (struct sockaddr *)&a, &n);
    server.port = ntohs(a.sin_port);
    server.status = 200;
}

// ---- calls
// ----------------------------------------------------------------------------------------

static struct store *open_store(size_t waiting)
{
    char endpoint[60];
    struct store *s = NULL;
    struct fault why;
    snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%d", server.port);
    base = (struct base){.store = {.ops = &base_ops, .shared = true}};
    const struct store_s3_params p = {
        .s3 = {.loop = &loop,
               .endpoint = endpoint,
               .host = endpoint + strlen("http://"),
               .bucket = "images",
               .prefix = "",
               .region = "eu-test-1",
               .key_file = key_file,
               .sha256 = sha256_hex,
               .hmac = sha256_hmac_hex},
        .waiting_bytes = waiting,
    };
    CHECK_INT(store_s3_open(&p, &base.store, &s, &why), ERR_OK);
    return s;
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

// Runs the loop until something holds; what must happen at some time may take a minute on a busy
// machine.
#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        for (double begin_ = clock_seconds(); !(condition) && clock_seconds() < begin_ + 60;)      \
            uv_run(&loop, UV_RUN_ONCE);                                                            \
        CHECK(condition);                                                                          \
    } while (0)

static void close_store(struct store *s)
{
    bool closed = false;
    s->ops->close(s, on_closed, &closed);
    UNTIL(closed);
    CHECK(base.closed);
}

static struct job *make(const char *id, int n)
{
    struct job *j = job_create();
    snprintf(j->id, sizeof j->id, "job_%s", id);
    j->spec.n = n;
    j->lease = 7;
    j->created = 1577923200000;
    for (int i = 0; i < n; i++)
        j->picture[i].object = 7;
    return j;
}

static int answered;
static enum err last;

static void on_done(struct store_call *c)
{
    answered++;
    last = c->why.code;
    store_call_free(c);
}

static void ask(struct store *s, enum store_op op, struct job *j, int picture, size_t bytes)
{
    struct store_call *c = store_call_about(op, j, on_done, NULL);
    c->picture = picture;
    c->room = 4;
    if (bytes) {
        c->image = blob_create(calloc(1, bytes), bytes);
        j->picture[picture].bytes = c->job->picture[picture].bytes = bytes;
    }
    answered = 0;
    s->ops->call(s, c);
}

// ---- tests
// ----------------------------------------------------------------------------------------

// An image waits for its object, the next ones of its job for it, and other jobs for neither.
static void test_order(void)
{
    struct job *j = make("a", 3), *other = make("b", 1);
    struct store *s = open_store(0);
    server.hold = "-0-7.png";
    UNTIL(!s->away.code);
    ask(s, STORE_DRAWN, j, 0, 10);
    UNTIL(server.held);
    ask(s, STORE_DRAWN, j, 1, 10);
    ask(s, STORE_FINISH, j, 2, 0);
    ask(s, STORE_FINISH, other, 5, 0);
    const int before = server.requests;
    UNTIL(server.requests > before); // the second image's object
    for (int i = 0; i < 20; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    CHECK_STR(base.log, "finish5 ");
    server.hold = NULL;
    respond(server.held);
    UNTIL(strlen(base.log) > 24);
    CHECK_STR(base.log, "finish5 drawn0 drawn1 finish2 ");
    server.deleted = 0;
    ask(s, STORE_REMOVE, j, 0, 0);
    UNTIL(server.deleted == 2); // the third image was never stored
    close_store(s);
    job_free(&j);
    job_free(&other);
}

// A store that refuses one image keeps the others.
static void test_refused(void)
{
    struct job *j = make("a", 2);
    struct store *s = open_store(0);
    UNTIL(!s->away.code);
    server.status = 400;
    ask(s, STORE_DRAWN, j, 0, 10);
    UNTIL(answered);
    CHECK_INT(last, ERR_IO);
    CHECK(!s->away.code);
    server.status = 503;
    ask(s, STORE_DRAWN, j, 1, 10);
    UNTIL(s->away.code);
    CHECK(!answered);
    server.status = 200;
    UNTIL(answered);
    CHECK_INT(last, ERR_OK);
    CHECK_STR(base.log, "drawn1 ");
    close_store(s);
    job_free(&j);
}

// Nobody listens, and no other program gets the port.
static void hold_port(void)
{
    struct sockaddr_in a;
    uv_tcp_init(&loop, &server.listener);
    uv_ip4_addr("127.0.0.1", server.port, &a);
    CHECK_INT(uv_tcp_bind(&server.listener, (struct sockaddr *)&a, 0), 0);
}

// Nobody listens: what waits has a bound, beyond half of it nothing more is claimed, and the end of
// the program does not wait for long.
static void test_bound(void)
{
    struct job *j = make("a", 3), *other = make("b", 1);
    uv_close((uv_handle_t *)&server.listener, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    hold_port();
    struct store *s = open_store(1000);
    CHECK_INT(s->away.code, ERR_BUSY);
    ask(s, STORE_DRAWN, j, 0, 500);
    ask(s, STORE_CLAIM, other, 0, 0);
    CHECK_INT(base.room, 4);
    ask(s, STORE_DRAWN, j, 1, 100);
    ask(s, STORE_CLAIM, other, 0, 0);
    CHECK_INT(base.room, 0);
    ask(s, STORE_ACCEPT, other, 0, 0);
    CHECK_INT(base.room, 0);
    ask(s, STORE_DRAWN, other, 0, 500);
    CHECK_INT(answered, 1);
    CHECK_INT(last, ERR_BUSY);
    ask(s, STORE_IMAGE, j, 0, 0);
    CHECK_INT(answered, 1);
    CHECK_INT(last, ERR_BUSY);
    ask(s, STORE_RELEASE, j, 0, 0);
    CHECK_INT(answered, 0);
    const double begin = clock_seconds();
    s->ops->leave(s);
    UNTIL(answered == 3); // both images, and what waited for them
    const double took = clock_seconds() - begin;
    CHECK_MSG(took > 4 && took < 10, "%g s", took);
    CHECK_STR(base.log, "claim0 claim0 accept0 release0 ");
    close_store(s);
    uv_close((uv_handle_t *)&server.listener, NULL);
    job_free(&j);
    job_free(&other);
}

int main(void)
{
    const int fd = mkstemp(key_file);
    CHECK(write(fd, "id\nsecret\n", 10) == 10);
    close(fd);
    log_setup(LOG_ERROR, LOG_TEXT);
    uv_loop_init(&loop);
    listen_there();
    test_order();
    test_refused();
    test_bound();
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(&loop), 0);
    unlink(key_file);
    return test_end();
}
