// A growable run of bytes, see buf.h. Called from every layer; one thread at a time.
#include "buf.h"

#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void buf_deinit(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = 0;
}

bool buf_reserve(struct buf *b, size_t more)
{
    size_t need, cap = b->cap ? b->cap : 64;
    char *p;

    if (b->failed)
        return false;
    if (more < b->cap - b->len)
        return true;
    if (more > SIZE_MAX / 4 - b->len) {
        b->failed = true;
        return false;
    }
    need = b->len + more + 1;
    while (cap < need)
        cap *= 2;
    p = realloc(b->data, cap);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->data = p;
    b->cap = cap;
    return true;
}

void buf_add(struct buf *b, const void *bytes, size_t n)
{
    if (!n || !buf_reserve(b, n))
        return;
    memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = 0;
}

void buf_puts(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_putc(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;
    int n;

    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0) {
        b->failed = true;
        return;
    }
    if (!buf_reserve(b, (size_t)n))
        return;
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    b->len += (size_t)n;
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

static enum err read_all(struct buf *b, int fd, const char *path, size_t max, struct fault *why)
{
    for (;;) {
        ssize_t n;
        if (!buf_reserve(b, 4096))
            return fault_set(why, ERR_NO_MEMORY, path, "%s: out of memory", fault_path(path));
        n = read(fd, b->data + b->len, b->cap - b->len - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fault_set(why, ERR_IO, path, "%s: %s", fault_path(path), strerror(errno));
        b->len += (size_t)n;
        b->data[b->len] = 0;
        if (b->len > max)
            return fault_set(why, ERR_FORMAT, path, "%s is larger than %zu bytes", fault_path(path),
                             max);
        if (!n)
            return ERR_OK;
    }
}

enum err buf_read_file(struct buf *b, const char *path, size_t max, struct fault *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    enum err e;

    if (fd < 0)
        return file_open_error(path, errno, why);
    if (fstat(fd, &st) || S_ISDIR(st.st_mode))
        e = fault_set(why, ERR_IO, path, "%s is not a regular file", fault_path(path));
    else
        e = read_all(b, fd, path, max, why);
    close(fd);
    return e;
}

char *buf_take(struct buf *b)
{
    char *s = NULL;
    if (!b->failed && buf_reserve(b, 0)) {
        b->data[b->len] = 0;
        s = b->data;
        b->data = NULL;
    }
    buf_deinit(b);
    return s;
}
