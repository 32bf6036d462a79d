// Files of the durable store, see store_files.h. Called by store_sqlite*.c, on any thread.
#include "store_files.h"

#include "buf.h"
#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool write_all(int fd, const uint8_t *data, size_t n)
{
    while (n) {
        const ssize_t w = write(fd, data, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return false;
        data += w;
        n -= (size_t)w;
    }
    return true;
}

static enum err no_memory(struct fault *why)
{
    return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
}

// Writes a file and gives it its name; NULL: it has that already. A file that is not complete does
// not stay.
static enum err write_file(const char *path, const char *name, const struct blob *data,
                           struct fault *why)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    // A full disk may be reported only by close.
    const bool written = fd >= 0 && write_all(fd, data->data, data->size);
    const bool closed = fd >= 0 && !close(fd);
    if (written && closed && (!name || !rename(path, name)))
        return ERR_OK;
    fault_set(why, ERR_IO, "store", "cannot write the image: %s", strerror(errno));
    unlink(path);
    return ERR_IO;
}

enum err store_file_write(const char *path, const struct blob *data, struct fault *why)
{
    static atomic_uint count; // two threads may write the same input image at once
    struct buf part = {0};
    buf_printf(&part, "%s.%u.part", path, atomic_fetch_add(&count, 1));
    const enum err err = part.failed ? no_memory(why) : write_file(part.data, path, data, why);
    buf_deinit(&part);
    return err;
}

enum err store_file_fill(const char *path, const struct blob *data, struct fault *why)
{
    return write_file(path, NULL, data, why);
}

enum err store_file_read(const char *path, struct blob **out, struct fault *why)
{
    struct buf b = {0};
    enum err err = buf_read_file(&b, path, STORE_MAX_IMAGE, why);
    const size_t n = b.len;
    if (!err && !(*out = blob_create((uint8_t *)buf_take(&b), n)))
        err = no_memory(why);
    buf_deinit(&b);
    return err;
}

// ---- input images -------------------------------------------------------------------------------

static char *input_path(const char *dir, const char *name)
{
    struct buf b = {0};
    buf_printf(&b, "%s/" STORE_INPUTS "/%s", dir, name);
    return buf_take(&b);
}

enum err store_input_put(const char *dir, const char *name, const struct blob *file,
                         struct fault *why)
{
    char *path = input_path(dir, name);
    const enum err err = path ? store_file_write(path, file, why) : no_memory(why);
    free(path);
    return err;
}

enum err store_input_get(const char *dir, const char *name, struct blob **out, struct fault *why)
{
    char *path = input_path(dir, name);
    enum err err = path ? store_file_read(path, out, why) : no_memory(why);
    if (err == ERR_NOT_FOUND) {
        log_msg(LOG_ERROR, "store", "%s", why->msg);
        fault_set(why, err, "image", "the input image of this job is missing from the store");
    }
    free(path);
    return err;
}

void store_input_remove(const char *dir, const char *name)
{
    char *path = input_path(dir, name);
    if (path)
        unlink(path);
    free(path);
}

size_t store_input_size(const char *dir, const char *name)
{
    char *path = input_path(dir, name);
    struct stat st;
    const bool there = path && !stat(path, &st) && S_ISREG(st.st_mode);
    free(path);
    return there ? (size_t)st.st_size : 0;
}

void store_input_sweep(const char *dir, bool (*wanted)(void *ctx, const char *name), void *ctx)
{
    char *path = input_path(dir, "");
    DIR *d = path ? opendir(path) : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        char name[sizeof e->d_name];
        snprintf(name, sizeof name, "%s", e->d_name);
        name[strcspn(name, ".")] = '\0'; // NAME.N.part: being written, or left behind
        if (*name && !wanted(ctx, name))
            store_input_remove(dir, e->d_name);
    }
    if (d)
        closedir(d);
    free(path);
}
