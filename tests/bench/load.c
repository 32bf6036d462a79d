// A load generator for the service, on this machine only. Prints one line of JSON.
//   load [options] METHOD PATH [BODY]
// By default a closed loop: every connection repeats the request as soon as it has the response.
// With --rate an open loop: requests start at fixed times, each on a free connection, and a
// response time counts from the request's scheduled start. With --hold the connections are
// server-sent event streams that stay open.
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LOAD_BUFFER = 1 << 16, LOAD_MAX_TIMES = 4 << 20 };

struct client {
    struct client *next_free;
    int fd; // -1: not connected
    double due;
    size_t have, need; // bytes of the answer; need 0: the headers are not complete
    char head[4096];   // the start of the answer
    bool waits;        // for an answer
    bool open;         // --hold: an event has arrived
    int status;
};

struct times {
    float *v;
    size_t n;
};

static struct {
    int epoll, port, connections;
    double seconds, rate;
    long count;
    bool hold;
    char *request;
    size_t request_size;
    struct client *clients, *free;
    double start;
    long started;
    size_t waiting, unsent, failed, opened;
    struct times good, busy, other;
    double good_until; // when the last good answer came
} load = {.connections = 1, .seconds = 5, .count = -1};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// ---- connections --------------------------------------------------------------------------------

static void client_connect(struct client *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)load.port)};
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    const int one = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to)) {
        perror("connect");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    epoll_ctl(load.epoll, EPOLL_CTL_ADD, c->fd, &ev);
}

static void client_send(struct client *c, double due)
{
    if (c->fd < 0)
        client_connect(c);
    c->have = c->need = 0;
    c->due = due;
    c->waits = true;
    load.started++;
    load.waiting++;
    // The request is small and the socket was idle: it fits.
    if (write(c->fd, load.request, load.request_size) != (ssize_t)load.request_size)
        load.failed++;
}

// The client has no request under way: in a closed loop it sends the next one.
static void client_ready(struct client *c)
{
    if (load.rate > 0) {
        c->next_free = load.free;
        load.free = c;
    } else if (load.count < 0 || load.started < load.count) {
        client_send(c, now());
    }
}

static void client_head(struct client *c)
{
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end)
        return;
    const char *length = strcasestr(c->head, "content-length:");
    c->status = atoi(c->head + 9);
    c->need = (size_t)(end - c->head) + 4 + (length ? strtoul(length + 15, NULL, 10) : 0);
}

static void times_add(struct times *t, double seconds)
{
    if (t->n < LOAD_MAX_TIMES)
        t->v[t->n++] = (float)seconds;
}

static void client_done(struct client *c)
{
    const double at = now();
    const bool busy = c->status == 429 || c->status == 503;
    if (c->status / 100 == 2)
        load.good_until = at - load.start;
    times_add(c->status / 100 == 2 ? &load.good : busy ? &load.busy : &load.other, at - c->due);
    c->waits = false;
    load.waiting--;
    client_ready(c);
}

static void client_closed(struct client *c)
{
    const bool waited = c->waits;
    close(c->fd);
    c->fd = -1;
    c->waits = false;
    if (!waited)
        return; // an idle connection; the next request opens another
    load.failed += !load.hold || !c->open;
    load.waiting--;
    if (!load.hold)
        client_ready(c);
}

static void client_read(struct client *c)
{
    static char buffer[LOAD_BUFFER];
    ssize_t n;
    while ((n = read(c->fd, buffer, sizeof buffer)) > 0) {
        if (c->have < sizeof c->head - 1) {
            const size_t room = sizeof c->head - 1 - c->have;
            const size_t take = (size_t)n < room ? (size_t)n : room;
            memcpy(c->head + c->have, buffer, take);
            c->head[c->have + take] = 0;
        }
        c->have += (size_t)n;
        if (load.hold) {
            if (!c->open && strstr(c->head, "event: ")) {
                c->open = true;
                load.opened++;
            }
            continue;
        }
        if (!c->need)
            client_head(c);
        if (c->need && c->have >= c->need) {
            client_done(c);
            return;
        }
    }
    if (n == 0 || (n < 0 && errno != EAGAIN))
        client_closed(c);
}

// ---- the run ------------------------------------------------------------------------------------

// Start what is due by now; a request for which no connection is free is counted and left out.
static void start_due(double at)
{
    for (long next = load.started + (long)load.unsent;; next++) {
        const double due = load.start + (double)next / load.rate;
        if (due > at || due - load.start >= load.seconds)
            return;
        struct client *c = load.free;
        if (c) {
            load.free = c->next_free;
            client_send(c, due);
        } else {
            load.unsent++;
        }
    }
}

static void run(void)
{
    struct epoll_event events[512];
    load.start = now();
    for (int i = 0; i < load.connections; i++)
        client_ready(&load.clients[i]);
    for (double at; (at = now()) < load.start + load.seconds;) {
        if (load.count >= 0 && load.started >= load.count && !load.waiting)
            break;
        if (load.rate > 0)
            start_due(at);
        const int n = epoll_wait(load.epoll, events, 512, load.rate > 0 ? 1 : 50);
        for (int i = 0; i < n; i++)
            client_read(events[i].data.ptr);
    }
}

static int by_time(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *name, const struct times *t)
{
    const double q[] = {0.5, 0.99, 1};
    const char *const names[] = {"p50", "p99", "max"};
    qsort(t->v, t->n, sizeof *t->v, by_time);
    printf(",\"%s\":%zu", name, t->n);
    for (int i = 0; i < 3; i++)
        printf(",\"%s_%s_ms\":%.3f", name, names[i],
               t->n ? (double)t->v[(size_t)(q[i] * (double)(t->n - 1))] * 1e3 : 0);
}

static void report(void)
{
    printf("{\"connections\":%d,\"seconds\":%.4f,\"good_until\":%.4f,\"failed\":%zu,\"unsent\":%zu,"
           "\"opened\":%zu",
           load.connections, now() - load.start, load.good_until, load.failed, load.unsent,
           load.opened);
    print_times("good", &load.good);
    print_times("busy", &load.busy);
    print_times("other", &load.other);
    printf("}\n");
}

// ---- the command line ---------------------------------------------------------------------------

// A stream that is held costs a descriptor; the hard limit rises only for whom it may.
static void raise_limit(void)
{
    struct rlimit files, wanted;
    getrlimit(RLIMIT_NOFILE, &files);
    wanted.rlim_cur = wanted.rlim_max = (rlim_t)load.connections + 64;
    if (files.rlim_max < wanted.rlim_max && !setrlimit(RLIMIT_NOFILE, &wanted))
        return;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

static bool parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},
        {"connections", required_argument, NULL, 'c'},
        {"seconds", required_argument, NULL, 's'},
        {"count", required_argument, NULL, 'n'},
        {"rate", required_argument, NULL, 'r'},
        {"hold", no_argument, NULL, 'h'},
        {0},
    };
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (o) {
        case 'p': load.port = atoi(optarg); break;
        case 'c': load.connections = atoi(optarg); break;
        case 's': load.seconds = atof(optarg); break;
        case 'n': load.count = atol(optarg); break;
        case 'r': load.rate = atof(optarg); break;
        case 'h': load.hold = true; break;
        default: return false;
        }
    }
    return load.port > 0 && load.connections > 0 && load.seconds > 0 && argc - optind > 1;
}

int main(int argc, char **argv)
{
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: load --port N [--connections N] [--seconds S] [--count N] "
                        " [--rate N] [--hold] METHOD PATH [BODY]\n");
        return 2;
    }
    const char *body = argc - optind > 2 ? argv[optind + 2] : "";
    raise_limit();
    load.epoll = epoll_create1(0);
    load.clients = calloc((size_t)load.connections, sizeof *load.clients);
    load.request = malloc(strlen(body) + 1024);
    struct times *const all[] = {&load.good, &load.busy, &load.other};
    for (int i = 0; i < 3; i++)
        if (!(all[i]->v = malloc(LOAD_MAX_TIMES * sizeof *all[i]->v)))
            return 1;
    if (!load.clients || !load.request)
        return 1;
    load.request_size = (size_t)sprintf(
        load.request,
        "%s %.500s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: %zu\r\n\r\n%s",
        argv[optind], argv[optind + 1], strlen(body), body);
    for (int i = 0; i < load.connections; i++)
        load.clients[i].fd = -1;
    run();
    report();
    for (int i = 0; i < 3; i++)
        free(all[i]->v);
    free(load.clients);
    free(load.request);
    return 0;
}
