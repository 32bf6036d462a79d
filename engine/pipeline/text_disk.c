// Text states on disk, see text_disk.h. A file is a head, the prompt, the states and a hash of all
// of it, and is named by the hash of model and prompt.
#include "text_disk.h"

#include "buf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct head {
    char magic[8];
    struct hash model;
    uint64_t prompt_bytes, floats;
    int32_t counts[2];
};
static const char magic[8] = "imgdtxt1", suffix[] = ".states";
enum { NAME_DIGITS = 32, NAME = 64 };

struct text_disk {
    struct text_disk_params p;
    char *dir;
    int fd; // of the folder
};

struct hash text_disk_file(struct hash before, const char *path)
{
    struct {
        uint64_t size, seconds, nanoseconds;
    } what = {0};
    const char *slash = path ? strrchr(path, '/') : NULL;
    struct stat st;

    if (path && !stat(path, &st)) {
        what.size = (uint64_t)st.st_size;
        what.seconds = (uint64_t)st.st_mtim.tv_sec;
        what.nanoseconds = (uint64_t)st.st_mtim.tv_nsec;
    }
    before = hash_join(before, hash_text(slash ? slash + 1 : path ? path : ""));
    return hash_join(before, hash_bytes(&what, sizeof what, 0));
}

enum err text_disk_open(const struct text_disk_params *p, struct text_disk **out, struct fault *why)
{
    struct text_disk *d = calloc(1, sizeof *d);
    struct stat st;

    *out = NULL;
    if (!d || !(d->dir = strdup(p->dir))) {
        free(d);
        return fault_set(why, ERR_NO_MEMORY, "text-cache", "no memory for the text cache");
    }
    d->p = *p;
    d->p.dir = d->dir;
    // Others may not read prompts: not even while the folder is being made.
    if (!mkdir(d->dir, 0700) || errno == EEXIST)
        d->fd = open(d->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    else
        d->fd = -1;
    if (d->fd < 0)
        fault_set(why, ERR_IO, "text-cache", "the folder %s cannot be used: %s", fault_path(d->dir),
                  strerror(errno));
    else if (fstat(d->fd, &st) || st.st_uid != geteuid() ||
             (st.st_mode & 077 && fchmod(d->fd, 0700)))
        fault_set(why, ERR_IO, "text-cache",
                  "the folder %s belongs to another user; remove it or choose another cache-dir",
                  fault_path(d->dir));
    else
        *out = d;
    if (*out)
        return ERR_OK;
    text_disk_close(&d);
    return ERR_IO;
}

void text_disk_close(struct text_disk **out)
{
    struct text_disk *d = *out;

    if (!d)
        return;
    if (d->fd >= 0)
        close(d->fd);
    free(d->dir);
    free(d);
    *out = NULL;
}

static void name_of(const struct text_disk *d, const char *prompt, char out[NAME])
{
    char hex[NAME_DIGITS + 1];

    hash_hex(hash_join(d->p.model, hash_text(prompt)), hex);
    snprintf(out, NAME, "%s%s", hex, suffix);
}

static struct head head_of(const struct text_disk *d, const char *prompt)
{
    struct head h = {.model = d->p.model, .prompt_bytes = strlen(prompt), .floats = d->p.floats};

    memcpy(h.magic, magic, sizeof magic);
    return h;
}

// Everything of a file before its hash.
static size_t body_bytes(const struct head *h)
{
    return sizeof *h + h->prompt_bytes + h->floats * sizeof(float);
}

static bool read_all(int fd, char *to, size_t n)
{
    while (n) {
        const ssize_t got = read(fd, to, n);
        if (got <= 0)
            return false;
        to += got;
        n -= (size_t)got;
    }
    return true;
}

// Whether the file is whole and of this model and prompt.
static bool accept(const struct head *want, const char *prompt, const char *file)
{
    const size_t body = body_bytes(want);
    const struct hash is = hash_bytes(file, body, 0);
    struct head h;

    memcpy(&h, file, sizeof h);
    return !memcmp(file + body, &is, sizeof is) && !memcmp(h.magic, want->magic, sizeof h.magic) &&
           hash_equal(h.model, want->model) && h.prompt_bytes == want->prompt_bytes &&
           h.floats == want->floats && !memcmp(file + sizeof h, prompt, h.prompt_bytes) &&
           h.counts[0] >= 0 && h.counts[1] >= h.counts[0];
}

bool text_disk_get(struct text_disk *d, const char *prompt, float *states, int counts[2])
{
    const struct head want = head_of(d, prompt);
    const size_t bytes = body_bytes(&want) + sizeof(struct hash);
    char name[NAME], *file = NULL;
    struct stat st;
    struct head h;
    bool ok = false;

    name_of(d, prompt, name);
    const int fd = openat(d->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode) && (size_t)st.st_size == bytes)
        file = malloc(bytes);
    ok = file && read_all(fd, file, bytes) && accept(&want, prompt, file);
    if (ok) {
        memcpy(&h, file, sizeof h);
        memcpy(states, file + sizeof h + h.prompt_bytes, h.floats * sizeof *states);
        counts[0] = h.counts[0];
        counts[1] = h.counts[1];
        futimens(fd, NULL); // used now
    } else if (file || (size_t)st.st_size != bytes) {
        unlinkat(d->fd, name, 0);
    }
    free(file);
    close(fd);
    return ok;
}

// ---- writing ------------------------------------------------------------------------------------

struct kept {
    char name[NAME];
    uint64_t bytes;
    struct timespec used;
};

static int oldest_first(const void *a, const void *b)
{
    const struct timespec *x = &((const struct kept *)a)->used,
                          *y = &((const struct kept *)b)->used;

    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

// Removes files until all fit the limit; other processes may write at the same time.
static void trim(struct text_disk *d)
{
    struct buf list = {0};
    uint64_t sum = 0;
    DIR *dir = opendir(d->dir);

    for (const struct dirent *f; dir && (f = readdir(dir));) {
        struct kept k = {.bytes = 0};
        const size_t n = strlen(f->d_name);
        struct stat st;
        // Also what a process left that ended while it wrote.
        if (n >= NAME || n < NAME_DIGITS + sizeof suffix - 1 ||
            strncmp(f->d_name + NAME_DIGITS, suffix, sizeof suffix - 1) != 0 ||
            fstatat(d->fd, f->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
            continue;
        memcpy(k.name, f->d_name, n);
        k.bytes = (uint64_t)st.st_size;
        k.used = st.st_mtim;
        sum += k.bytes;
        buf_add(&list, &k, sizeof k);
    }
    if (dir)
        closedir(dir);
    struct kept *kept = (struct kept *)(void *)list.data;
    const size_t count = list.failed ? 0 : list.len / sizeof *kept;
    if (count && sum > d->p.limit)
        qsort(kept, count, sizeof *kept, oldest_first);
    for (size_t i = 0; i < count && sum > d->p.limit; i++) {
        unlinkat(d->fd, kept[i].name, 0);
        sum -= kept[i].bytes;
    }
    buf_deinit(&list);
}

static bool write_all(int fd, const char *from, size_t n)
{
    while (n) {
        const ssize_t put = write(fd, from, n);
        if (put <= 0)
            return false;
        from += put;
        n -= (size_t)put;
    }
    return true;
}

void text_disk_put(struct text_disk *d, const char *prompt, const float *states,
                   const int counts[2])
{
    struct head h = head_of(d, prompt);
    const size_t body = body_bytes(&h);
    char name[NAME], temporary[NAME + 16];
    struct buf file = {0};

    h.counts[0] = counts[0];
    h.counts[1] = counts[1];
    if (body + sizeof(struct hash) > d->p.limit)
        return;
    buf_add(&file, &h, sizeof h);
    buf_add(&file, prompt, h.prompt_bytes);
    buf_add(&file, states, h.floats * sizeof *states);
    if (!file.failed) {
        const struct hash sum = hash_bytes(file.data, file.len, 0);
        buf_add(&file, &sum, sizeof sum);
    }
    name_of(d, prompt, name);
    snprintf(temporary, sizeof temporary, "%s.%ld", name, (long)getpid());
    const int fd =
        file.failed
            ? -1
            : openat(d->fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0) {
        const bool written = write_all(fd, file.data, file.len);
        if (close(fd) || !written || renameat(d->fd, temporary, d->fd, name))
            unlinkat(d->fd, temporary, 0);
        trim(d);
    }
    buf_deinit(&file);
}
