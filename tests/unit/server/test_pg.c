// The client for PostgreSQL against a server of this test, which speaks as much of the protocol as
// the client needs, and can be silent, talk nonsense, or hang up after any number of bytes. Tests
// with a real PostgreSQL are in tests/api/test_postgres.py.
#include "clock.h"
#include "log.h"
#include "pg.h"
#include "test.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

static uv_loop_t loop;

// ---- the server ---------------------------------------------------------------------------------

struct fake {
    uv_tcp_t listener;
    int port;
    int clients;     // connections so far
    int open;        // handles that are not closed yet
    int drop_after;  // bytes sent on the first connection, then it is closed; -1: never
    int silent_from; // number of the first connection that is answered; lower ones hear nothing
    const char *nonsense; // sent on the first connection instead of the first answer
    size_t nonsense_size;
    const char *error;       // SQLSTATE of each statement that mentions "fail"
    bool error_once, refuse; // refuse: FATAL in place of a session
    int statements;          // executed, without those that set the time limit
};

struct client {
    uv_tcp_t tcp;
    struct fake *f;
    int number, sent;
    bool started, failed, closing;
    char in[1 << 16];
    size_t have;
    char sql[200]; // of the last Parse
};

static struct fake fake;

static void on_client_closed(uv_handle_t *h)
{
    fake.open--;
    free(h->data);
}

static void hang_up(struct client *c)
{
    if (!c->closing)
        uv_close((uv_handle_t *)&c->tcp, on_client_closed);
    c->closing = true;
}

static void put(struct client *c, const void *bytes, size_t n)
{
    const int most = c->number == 1 ? c->f->drop_after : -1;
    bool last = false;
    if (c->closing || c->number < c->f->silent_from)
        return;
    if (most >= 0 && c->sent + (int)n >= most) {
        n = (size_t)(most - c->sent);
        last = true;
    }
    uv_buf_t b = uv_buf_init((char *)(size_t)bytes, (unsigned)n);
    if (n)
        uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
    c->sent += (int)n;
    if (last)
        hang_up(c);
}

static void message(struct client *c, char type, const void *body, size_t n)
{
    char head[5] = {type};
    const uint32_t size = htonl((uint32_t)n + 4);
    memcpy(head + 1, &size, 4);
    put(c, head, 5);
    put(c, body, n);
}

static void error_message(struct client *c, const char *severity, const char *state)
{
    char body[200];
    const int n = snprintf(body, sizeof body, "S%s%cV%s%cC%s%cMtold to%c", severity, 0, severity, 0,
                           state, 0, 0);
    message(c, 'E', body, (size_t)n + 1);
}

static void start_session(struct client *c)
{
    static const char version[] = "server_version\00015.0", utf8[] = "client_encoding\0UTF8";
    c->started = true;
    if (c->f->refuse) {
        error_message(c, "FATAL", "53300");
        hang_up(c);
        return;
    }
    message(c, 'R', "\0\0\0\0", 4);
    message(c, 'S', version, sizeof version);
    message(c, 'S', utf8, sizeof utf8);
    message(c, 'K', "\0\0\0\1\0\0\0\2", 8);
    message(c, 'Z', "I", 1);
}

// One row with one column: the text of the statement.
static void execute(struct client *c)
{
    static const char row[] = "\0\1column\0\0\0\0\0\0\0\0\0\0\31\377\377\377\377\377\377\0";
    char data[300];
    const uint32_t n = (uint32_t)strlen(c->sql), size = htonl(n);
    if (c->failed)
        return;
    if (c->f->error && strstr(c->sql, "fail")) {
        error_message(c, "ERROR", c->f->error);
        if (c->f->error_once)
            c->f->error = NULL;
        c->failed = true;
        return;
    }
    c->f->statements += !strstr(c->sql, "statement_timeout");
    message(c, '1', "", 0);
    message(c, '2', "", 0);
    message(c, 'T', row, 2 + 7 + 18);
    memcpy(data, "\0\1", 2);
    memcpy(data + 2, &size, 4);
    memcpy(data + 6, c->sql, n);
    message(c, 'D', data, 6 + n);
    message(c, 'C', "SELECT 1", 9);
}

static void take(struct client *c, char type, const char *body, size_t n)
{
    if (c->number == 1 && c->f->nonsense && type == 'P') {
        put(c, c->f->nonsense, c->f->nonsense_size);
        c->f->nonsense = NULL;
        c->failed = true;
    }
    switch (type) {
    case 'P': snprintf(c->sql, sizeof c->sql, "%s", body + 1); break; // the name is empty
    case 'E': execute(c); break;
    case 'S':
        c->failed = false;
        message(c, 'Z', "I", 1);
        break;
    case 'X': hang_up(c); break;
    default: break;
    }
}

static void take_all(struct client *c)
{
    for (;;) {
        const size_t head = c->started ? 5 : 4;
        uint32_t size;
        if (c->have < head || c->closing)
            return;
        memcpy(&size, c->in + head - 4, 4);
        const size_t whole = ntohl(size) + head - 4;
        if (c->have < whole)
            return;
        if (c->started)
            take(c, c->in[0], c->in + 5, whole - 5);
        else if (c->in[4] == 0x04) // SSLRequest or GSSENCRequest
            put(c, "N", 1);
        else
            start_session(c);
        memmove(c->in, c->in + whole, c->have - whole);
        c->have -= whole;
    }
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *out)
{
    struct client *c = h->data;
    *out = uv_buf_init(c->in + c->have, (unsigned)(sizeof c->in - c->have));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct client *c = s->data;
    if (n < 0) {
        hang_up(c);
        return;
    }
    c->have += (size_t)n;
    take_all(c);
}

static void on_client(uv_stream_t *listener, int status)
{
    struct client *c = calloc(1, sizeof *c);
    c->f = &fake;
    c->number = ++fake.clients;
    uv_tcp_init(&loop, &c->tcp);
    c->tcp.data = c;
    fake.open++;
    uv_accept(listener, (uv_stream_t *)&c->tcp);
    uv_tcp_nodelay(&c->tcp, 1);
    uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
    if (fake.drop_after == 0 && c->number == 1)
        hang_up(c);
}

static void fake_listen(void)
{
    struct sockaddr_in a;
    int n = sizeof a;
    uv_tcp_init(&loop, &fake.listener);
    uv_ip4_addr("127.0.0.1", fake.port, &a);
    uv_tcp_bind(&fake.listener, (struct sockaddr *)&a, 0);
    CHECK(!uv_listen((uv_stream_t *)&fake.listener, 16, on_client));
    uv_tcp_getsockname(&fake.listener, (struct sockaddr *)&a, &n);
    fake.port = ntohs(a.sin_port);
}

static void fake_start(void)
{
    fake = (struct fake){.drop_after = -1};
    fake_listen();
}

static void on_listener_closed(uv_handle_t *h) {}

// ---- the client ---------------------------------------------------------------------------------

static struct pg *pg;
static int answered, good, order_errors, opened, lost;
static struct fault last;

static struct pg_params params(const char *database)
{
    return (struct pg_params){
        .loop = &loop,
        .database = database,
        .name = "test",
        .connect_seconds = 0.3,
        .statement_seconds = 0.1,
        .backoff_seconds = 0.005,
        .patience_seconds = 2,
        .waiting_bytes = 1 << 20,
    };
}

static void open_pg(const struct pg_params *more)
{
    char database[200];
    struct fault why = {0};
    snprintf(database, sizeof database, "host=127.0.0.1 port=%d user=u dbname=d", fake.port);
    struct pg_params p = more ? *more : params(database);
    p.database = database;
    answered = good = order_errors = opened = lost = 0;
    CHECK_MSG(!pg_open(&p, &pg, &why), "%s", why.msg);
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static void close_pg(void)
{
    bool closed = false;
    pg_close(pg, on_closed, &closed);
    while (!closed)
        uv_run(&loop, UV_RUN_ONCE);
    if (!uv_is_closing((uv_handle_t *)&fake.listener))
        uv_close((uv_handle_t *)&fake.listener, on_listener_closed);
    while (fake.open)
        uv_run(&loop, UV_RUN_ONCE);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static void on_tick(uv_timer_t *t) {}

// Runs the loop until so many calls were answered, or so long.
static void run_until(int calls, double seconds)
{
    uv_timer_t tick;
    const double end = clock_seconds() + seconds;
    uv_timer_init(&loop, &tick);
    uv_timer_start(&tick, on_tick, 10, 10);
    while (answered < calls && clock_seconds() < end)
        uv_run(&loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, on_listener_closed);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static void on_done(struct pg_call *c)
{
    order_errors += (int)(intptr_t)c->ctx != answered;
    answered++;
    if (!c->why.code) {
        good++;
        for (int i = 0; c->statement[i] && i < PG_MAX_STATEMENTS; i++)
            CHECK(pg_rows(c, i) == 1 && strstr(pg_get(c, i, 0, 0), "select"));
    }
    last = c->why;
    pg_call_free(c);
}

static void ask(const char *sql, bool patient)
{
    static int number;
    struct pg_call *c = pg_call_create(on_done, NULL);
    if (!answered && !pg_waiting(pg))
        number = 0;
    c->ctx = (void *)(intptr_t)number++;
    c->patient = patient;
    pg_query(c, sql, false);
    pg_text(c, "value");
    pg_int(c, 7);
    pg_text(c, NULL);
    pg_query(c, "select two", false);
    pg_send(pg, c);
}

// ---- tests --------------------------------------------------------------------------------------

static void test_answers_in_order(void)
{
    fake_start();
    open_pg(NULL);
    for (int i = 0; i < 100; i++)
        ask("select one", false);
    run_until(100, 10);
    CHECK_INT(good, 100);
    CHECK_INT(order_errors, 0);
    CHECK_INT(fake.clients, 1);
    CHECK_INT(fake.statements, 200);
    CHECK(pg_up(pg) && !pg_waiting(pg));
    close_pg();
}

// The connection ends after each number of bytes: every call is answered once, by success.
static void test_lost_at_each_byte(void)
{
    int bytes = 0;
    for (int i = 0; !bytes || i <= bytes; i += i < 40 ? 1 : 13) {
        fake_start();
        fake.drop_after = i;
        open_pg(NULL);
        for (int k = 0; k < 4; k++)
            ask("select one", k % 2);
        run_until(4, 10);
        CHECK_MSG(good == 4 && !order_errors, "after %d bytes: %d good, %d out of order", i, good,
                  order_errors);
        bytes = 900;
        close_pg();
    }
}

static void test_nonsense(void)
{
    static char zeros[64], noise[4096];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (char)(i * 37 + 11);
    static const struct {
        const char *bytes;
        size_t n;
    } cases[] = {
        {zeros, sizeof zeros},
        {noise, sizeof noise},
        {"Z\0\0\0\5I", 6},            // an end without results
        {"D\0\0\0\6\0\1", 7},         // a row without columns
        {"T\177\377\377\377\0\1", 7}, // a huge message
        {"1\0\0\0\4C\0\0\0\6X\0Z\0\0\0\5I", 17},
        {"G\0\0\0\7\0\0\0", 8}, // COPY, which nobody asked for
        {"HTTP/1.1 400 Bad Request\r\n\r\n", 28},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake_start();
        fake.nonsense = cases[i].bytes;
        fake.nonsense_size = cases[i].n;
        struct pg_params p = params("");
        p.patience_seconds = 20;
        open_pg(&p);
        ask("select one", false);
        ask("select one", false);
        // A message that never ends is noticed by the time limit.
        run_until(2, 20);
        CHECK_MSG(good == 2 && !order_errors, "case %zu: %d good", i, good);
        CHECK_INT(fake.clients, 2);
        close_pg();
    }
}

// A server that accepts the connection and says nothing.
static void test_silence(void)
{
    fake_start();
    fake.silent_from = 3;
    open_pg(NULL);
    ask("select one", true);
    run_until(1, 10);
    CHECK_INT(good, 1);
    CHECK_INT(fake.clients, 3);
    close_pg();
}

// Nobody listens: a call fails after the patience, later ones at once, patient ones wait.
static void test_away(void)
{
    fake_start();
    uv_close((uv_handle_t *)&fake.listener, on_listener_closed);
    uv_run(&loop, UV_RUN_NOWAIT);
    struct pg_params p = params("");
    p.patience_seconds = 0.5;
    open_pg(&p);
    const double begin = clock_seconds(), cpu = test_seconds();
    ask("select one", false);
    ask("select one", true);
    run_until(1, 10);
    CHECK_INT(good, 0);
    CHECK_INT(last.code, ERR_BUSY);
    CHECK_STR(last.param, "store");
    CHECK(clock_seconds() - begin >= 0.4);
    ask("select one", false);
    CHECK_INT(answered, 2); // at once
    run_until(3, 1);
    CHECK_INT(answered, 2);
    CHECK(test_seconds() - cpu < 0.3 * (clock_seconds() - begin));
    fake_listen();
    run_until(3, 20);
    CHECK_INT(good, 1);
    close_pg();
}

static void test_refused(void)
{
    fake_start();
    fake.refuse = true;
    struct pg_params p = params("");
    p.backoff_seconds = 0.4;
    p.patience_seconds = 0.5;
    open_pg(&p);
    ask("select one", false);
    run_until(1, 10);
    CHECK_INT(last.code, ERR_BUSY);
    CHECK(!strstr(last.msg, "127.0.0.1"));
    CHECK(fake.clients >= 1 && fake.clients <= 4); // the pauses are longer than the patience
    fake.refuse = false;
    ask("select one", true);
    run_until(2, 20);
    CHECK_INT(good, 1);
    close_pg();
}

static void test_bounds(void)
{
    fake_start();
    fake.silent_from = 1000;
    struct pg_params p = params("");
    p.waiting_bytes = 20000;
    open_pg(&p);
    int sent = 0;
    while (!answered && sent++ < 1000)
        ask("select one", true);
    CHECK(sent > 2 && sent < 100);
    CHECK_INT(last.code, ERR_BUSY);
    CHECK(pg_waiting(pg) <= 20000);
    close_pg(); // they fail after the patience
    CHECK_INT(answered, sent);
    CHECK_INT(good, 0);
}

static void test_errors(void)
{
    static const struct {
        const char *state;
        enum err code;
        int clients;
    } cases[] = {
        {"23505", ERR_IO, 1},   {"42P01", ERR_IO, 1},   {"53100", ERR_IO, 1},
        {"53200", ERR_BUSY, 1}, {"57014", ERR_BUSY, 1}, {"55P03", ERR_BUSY, 1},
        {"40001", ERR_OK, 1},   {"40P01", ERR_OK, 1}, // again
        {"57P01", ERR_OK, 2},   {"25006", ERR_OK, 2}, // again, in another session
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake_start();
        fake.error = cases[i].state;
        fake.error_once = true;
        open_pg(NULL);
        ask("select fail", false);
        run_until(1, 10);
        CHECK_MSG(last.code == cases[i].code, "%s: %s", cases[i].state, last.msg);
        CHECK(!strstr(last.msg, "told to"));
        ask("select one", false);
        run_until(2, 10);
        CHECK_INT(good, cases[i].code ? 1 : 2);
        CHECK_INT(fake.clients, cases[i].clients);
        close_pg();
    }
}

// An error that stays is not tried indefinitely.
static void test_conflicts_end(void)
{
    fake_start();
    fake.error = "40001";
    open_pg(NULL);
    ask("select fail", false);
    run_until(1, 10);
    CHECK_INT(last.code, ERR_BUSY);
    close_pg();
    fake_start();
    fake.error = "57P01";
    struct pg_params p = params("");
    p.patience_seconds = 30;
    open_pg(&p);
    ask("select fail", true);
    run_until(1, 60);
    CHECK_INT(last.code, ERR_BUSY);
    CHECK(fake.clients > 10 && fake.clients < 30);
    close_pg();
}

static void on_lost(void *ctx)
{
    lost++;
}

static void on_first(struct pg_call *c)
{
    CHECK(!good);
    if (!c->why.code)
        pg_ready(pg);
    pg_call_free(c);
}

static void on_opened(void *ctx)
{
    opened++;
    struct pg_call *c = pg_call_create(on_first, NULL);
    pg_query(c, "select first", false);
    pg_send_first(pg, c);
}

// The calls that open a session come before the calls that wait, and again in the next session.
static void test_first(void)
{
    for (int i = 0; i < 500; i += 23) {
        fake_start();
        fake.drop_after = i;
        struct pg_params p = params("");
        p.opened = on_opened;
        p.lost = on_lost;
        open_pg(&p);
        ask("select one", false);
        run_until(1, 10);
        CHECK_INT(good, 1);
        CHECK_INT(opened, lost + 1);
        close_pg();
    }
}

static void test_connection_strings(void)
{
    static const struct {
        const char *text;
        bool good;
    } cases[] = {
        {"host=db dbname=x", true},
        {"postgres://u@db:5433/x?sslmode=verify-full", true},
        {"postgresql:///x?host=/run/postgresql", true},
        {"host=a,b port=1,2", true},
        {"", true},
        {"host=db password=hunter2", false},
        {"postgres://u:hunter2@db/x", false},
        {"postgres://db/x?password=hunter2", false},
        {"sslpassword=hunter2", false},
        {"service=hunter2", false},
        {"host=db pass word=hunter2", false},
        {"host=db 'hunter2", false},
        {"hunter2", false},
        {"postgres://u:%zzhunter2@db/x", false},
        {"postgres://[::1hunter2/x", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pg_params p = params(cases[i].text);
        struct fault why = {0};
        bool closed = false;
        const enum err err = pg_open(&p, &pg, &why);
        CHECK_MSG(!err == cases[i].good, "%s: %s", cases[i].text, why.msg);
        CHECK_MSG(!strstr(why.msg, "hunter2"), "%s", why.msg);
        if (err)
            continue;
        pg_close(pg, on_closed, &closed);
        while (!closed)
            uv_run(&loop, UV_RUN_ONCE);
    }
    struct pg_params p = params("host=db");
    struct fault why = {0};
    p.password_file = "/nonexistent/secret";
    CHECK_INT(pg_open(&p, &pg, &why), ERR_NOT_FOUND);
}

// A host that has no address fails like one that does not answer; of two, the other is used.
static void test_hosts(void)
{
    static const struct {
        const char *before, *after; // the port
        bool good;
    } cases[] = {
        {"user=u host=localhost port=", "", true},
        {"user=u host=unknown.invalid port=", "", false},
        {"user=u host=unknown.invalid,localhost port=1,", "", true},
        {"user=u host=localhost,localhost port=1,", "", true},
        {"user=u host=/nonexistent,127.0.0.1 port=", "", true},
        {"user=u hostaddr=127.0.0.1 port=", "", true},
        {"postgres://u@localhost:", "/d?sslmode=disable", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char database[200];
        struct fault why = {0};
        fake_start();
        snprintf(database, sizeof database, "%s%d%s", cases[i].before, fake.port, cases[i].after);
        struct pg_params p = params(database);
        p.connect_seconds = 5;
        answered = good = 0;
        CHECK_MSG(!pg_open(&p, &pg, &why), "%s", why.msg);
        ask("select one", false);
        run_until(1, 10);
        CHECK_MSG(good == cases[i].good, "%s: %s", database, last.msg);
        close_pg();
    }
}

int main(void)
{
    uv_loop_init(&loop);
    log_setup(LOG_ERROR, LOG_TEXT);
    unsetenv("PGPASSWORD");
    setenv("PGGSSENCMODE", "disable", 1);
    test_answers_in_order();
    test_lost_at_each_byte();
    test_nonsense();
    test_silence();
    test_away();
    test_refused();
    test_bounds();
    test_errors();
    test_conflicts_end();
    test_first();
    test_connection_strings();
    test_hosts();
    uv_run(&loop, UV_RUN_NOWAIT);
    CHECK(!uv_loop_close(&loop));
    return test_end();
}
