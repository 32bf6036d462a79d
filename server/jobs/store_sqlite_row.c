// Jobs as SQLite rows, and the check of the files that a row refers to. Called by the store's
// thread, and by the loop thread while the store is opened.
#include "store_sqlite_impl.h"

#include "buf.h"
#include "log.h"
#include "store_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// An image whose file does not match its row.
struct damaged_image {
    struct damaged_image *next;
    char id[JOB_ID_SIZE];
    int picture;
};

const char *sqlite_text(sqlite3_stmt *row, int i)
{
    const char *s = (const char *)sqlite3_column_text(row, i);
    return s ? s : "";
}

static const char *row_text(const void *row, int i)
{
    return sqlite_text((sqlite3_stmt *)(size_t)row, i);
}

static int64_t row_number(const void *row, int i)
{
    return sqlite3_column_int64((sqlite3_stmt *)(size_t)row, i);
}

struct store_row sqlite_row(sqlite3_stmt *row)
{
    return (struct store_row){row_text, row_number, row};
}

static bool is_damaged(const struct store_sqlite *q, const char *id, int picture)
{
    for (const struct damaged_image *d = q->damaged; d; d = d->next)
        if (d->picture == picture && !strcmp(d->id, id))
            return true;
    return false;
}

void sqlite_replaced(struct store_sqlite *q, const char *id, int picture)
{
    struct damaged_image **at = &q->damaged;
    while (*at && ((*at)->picture != picture || strcmp((*at)->id, id)))
        at = &(*at)->next;
    struct damaged_image *d = *at;
    if (!d)
        return;
    *at = d->next;
    free(d);
}

// Damaged images are lost.
static void set_picture_states(const struct store_sqlite *q, struct job *j)
{
    for (int i = 0; i < j->spec.n; i++)
        if (j->picture[i].bytes && is_damaged(q, j->id, i))
            j->picture[i].bytes = 0;
    store_row_states(j);
}

enum err sqlite_read_row(const struct store_sqlite *q, sqlite3_stmt *row, struct job **out,
                         struct fault *why)
{
    const struct store_row r = sqlite_row(row);
    const enum err err = store_row_read(&r, out, why);
    if (!err)
        set_picture_states(q, *out);
    return err;
}

// ---- files of images ----------------------------------------------------------------------------

char *sqlite_image_path(const struct store_sqlite *q, const char *id, int picture,
                        enum job_format format)
{
    struct buf b = {0};
    buf_printf(&b, "%s/images/%s-%d.%s", q->dir, id, picture, job_format_name(format));
    return buf_take(&b);
}

// Whether a file begins with its format's signature: after a power failure it may be all zeros.
static bool is_image(const uint8_t head[12], enum job_format format)
{
    switch (format) {
    case JOB_PNG: return !memcmp(head, "\x89PNG\r\n\x1a\n", 8);
    case JOB_JPEG: return !memcmp(head, "\xff\xd8\xff", 3);
    default: return !memcmp(head, "RIFF", 4) && !memcmp(head + 8, "WEBP", 4);
    }
}

static const char *image_damage(const char *path, enum job_format format, size_t bytes)
{
    uint8_t head[12] = {0};
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return strerror(errno);
    const bool ok = !fstat(fd, &st) && S_ISREG(st.st_mode);
    const ssize_t n = ok ? read(fd, head, sizeof head) : -1;
    close(fd);
    if (n < 0)
        return "it cannot be read";
    if ((uint64_t)st.st_size != bytes)
        return "its size is wrong";
    return n == sizeof head && is_image(head, format) ? NULL : "it is not an image";
}

static void note_damage(struct store_sqlite *q, const struct job *j, int picture)
{
    struct damaged_image *d = calloc(1, sizeof *d);
    if (!d)
        return; // reading the file will report its error
    memcpy(d->id, j->id, sizeof d->id);
    d->picture = picture;
    d->next = q->damaged;
    q->damaged = d;
}

void sqlite_check_images(struct store_sqlite *q, struct job *j)
{
    for (int i = 0; i < j->spec.n; i++) {
        if (!j->picture[i].bytes)
            continue;
        char *path = sqlite_image_path(q, j->id, i, j->spec.format);
        const char *damage = path ? image_damage(path, j->spec.format, j->picture[i].bytes) : NULL;
        if (damage) {
            log_msg(LOG_ERROR, "store", "skipped the damaged image %s: %s", path, damage);
            note_damage(q, j, i);
        }
        free(path);
    }
    set_picture_states(q, j);
}

void sqlite_damaged_free(struct store_sqlite *q)
{
    for (struct damaged_image *d = q->damaged, *next; d; d = next) {
        next = d->next;
        free(d);
    }
    q->damaged = NULL;
}
