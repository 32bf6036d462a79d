// A load generator for the service, on this machine only: keep-alive connections that repeat one
// request, or streams that are opened and held. Prints one line of JSON.
//   load PORT CONNECTIONS SECONDS METHOD PATH [BODY]     requests
//   load PORT CONNECTIONS SECONDS HOLD PATH              streams of server-sent events
#include <errno.h>
#include <fcntl.h>
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
    int fd;
    double sent;
    size_t have, need; // bytes of the answer; need 0: the headers are not complete
    char head[4096];   // the start of the answer
    bool open;         // HOLD: an event has arrived
    int status;
};

static struct {
    int epoll, port, count;
    bool hold;
    char *request;
    size_t request_size;
    float *times, *busy_times;
    size_t answers, good, busy, failed, opened;
} load;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void client_connect(struct client *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)load.port)};
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    const int one = 1;
    memset(c, 0, sizeof *c);
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

static void client_send(struct client *c)
{
    c->have = c->need = 0;
    c->sent = now();
    // The request is small and the socket was idle: it fits.
    if (write(c->fd, load.request, load.request_size) != (ssize_t)load.request_size)
        load.failed++;
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

static void client_done(struct client *c)
{
    const float seconds = (float)(now() - c->sent);
    const bool busy = c->status == 429 || c->status == 503;
    if (load.answers < LOAD_MAX_TIMES)
        load.times[load.answers] = seconds;
    if (busy && load.busy < LOAD_MAX_TIMES)
        load.busy_times[load.busy] = seconds;
    load.answers++;
    load.good += c->status / 100 == 2;
    load.busy += busy;
    client_send(c);
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
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        load.failed += !load.hold || !c->open;
        close(c->fd);
        if (!load.hold) {
            client_connect(c);
            client_send(c);
        }
    }
}

static int by_time(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

// In milliseconds; sorts.
static double quantile(float *times, size_t n, double q)
{
    n = n < LOAD_MAX_TIMES ? n : LOAD_MAX_TIMES;
    qsort(times, n, sizeof *times, by_time);
    return n ? (double)times[(size_t)(q * (double)(n - 1))] * 1e3 : 0;
}

static void run(struct client *clients, double seconds)
{
    struct epoll_event events[512];
    const double end = now() + seconds;
    while (now() < end) {
        const int n = epoll_wait(load.epoll, events, 512, 50);
        for (int i = 0; i < n; i++)
            client_read(events[i].data.ptr);
    }
}

int main(int argc, char **argv)
{
    if (argc < 6) {
        fprintf(stderr, "usage: load PORT CONNECTIONS SECONDS METHOD|HOLD PATH [BODY]\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    const char *method = argv[4], *body = argc > 6 ? argv[6] : "";
    load.port = atoi(argv[1]);
    load.count = atoi(argv[2]);
    load.hold = !strcmp(method, "HOLD");
    load.epoll = epoll_create1(0);
    load.times = malloc(LOAD_MAX_TIMES * sizeof *load.times);
    struct client *clients = calloc((size_t)load.count, sizeof *clients);
    load.request = malloc(strlen(body) + 1024);
    load.busy_times = malloc(LOAD_MAX_TIMES * sizeof *load.busy_times);
    if (!load.times || !load.busy_times || !clients || !load.request)
        return 1;
    load.request_size = (size_t)sprintf(
        load.request,
        "%s %.500s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Content-Length: %zu\r\n\r\n%s",
        load.hold ? "GET" : method, argv[5], strlen(body), body);
    const double start = now();
    for (int i = 0; i < load.count; i++) {
        client_connect(&clients[i]);
        client_send(&clients[i]);
    }
    run(clients, atof(argv[3]));
    const double seconds = now() - start;
    printf("{\"connections\":%d,\"answers\":%zu,\"per_second\":%.1f,\"good\":%zu,\"busy\":%zu,"
           "\"failed\":%zu,\"opened\":%zu,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,"
           "\"busy_p50_ms\":%.3f,\"busy_p99_ms\":%.3f}\n",
           load.count, load.answers, (double)load.answers / seconds, load.good, load.busy,
           load.failed, load.opened, quantile(load.times, load.answers, 0.5),
           quantile(load.times, load.answers, 0.99), quantile(load.times, load.answers, 1),
           quantile(load.busy_times, load.busy, 0.5), quantile(load.busy_times, load.busy, 0.99));
    free(clients);
    free(load.times);
    free(load.busy_times);
    free(load.request);
    return 0;
}
