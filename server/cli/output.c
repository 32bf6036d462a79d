// Output files of `imagend generate`: checked before a model is loaded, written under a temporary
// name and renamed, so that a full disk leaves no partial file. Called by generate.c on the only
// thread.
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char temporary[] = ".imagend-XXXXXX";
enum { LONGEST_FOLDER = PATH_MAX - sizeof temporary - 1 };

// ---- names ------------------------------------------------------------------------------------

void cli_output_name(const struct cli_output *o, int index, char *out, size_t n)
{
    const char *dot = strrchr(o->path, '.'), *slash = strrchr(o->path, '/');

    if (!o->many)
        snprintf(out, n, "%s", o->path);
    else if (dot && (!slash || dot > slash))
        snprintf(out, n, "%.*s-%d%s", (int)(dot - o->path), o->path, index + 1, dot);
    else
        snprintf(out, n, "%s-%d", o->path, index + 1);
}

// The folder of a file; false if its name is too long for a temporary file in it.
static bool folder_of(const char *path, char out[LONGEST_FOLDER])
{
    const char *slash = strrchr(path, '/');
    const size_t n = slash ? (size_t)(slash - path) + (slash == path) : 1;

    if (n >= LONGEST_FOLDER)
        return false;
    memcpy(out, slash ? path : ".", n);
    out[n] = 0;
    return true;
}

// ---- checks -----------------------------------------------------------------------------------

static enum err check_format(struct cli_output *o, struct fault *why)
{
    const char *slash = strrchr(o->path, '/'), *dot = strrchr(slash ? slash : o->path, '.');

    o->format = CODEC_PNG;
    if (!dot || dot == o->path || (slash && dot == slash + 1) ||
        codec_format_of(o->path, &o->format))
        return ERR_OK;
    return fault_set(why, ERR_INVALID, "output",
                     "the output file \"%.100s\" has an unknown extension; use .png, .jpg or .webp",
                     o->path);
}

static enum err check_standard_output(const struct cli_output *o, struct fault *why)
{
    if (o->many)
        return fault_set(why, ERR_INVALID, "output",
                         "standard output takes one image; give a file name for several");
    if (isatty(STDOUT_FILENO))
        return fault_set(why, ERR_INVALID, "output",
                         "standard output is a terminal; redirect it to a file or a pipe");
    return ERR_OK;
}

// Creates a temporary file in the folder of path; -1 with errno set on failure.
static int create_beside(const char *path, char name[PATH_MAX])
{
    char folder[LONGEST_FOLDER];

    if (!folder_of(path, folder)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    snprintf(name, PATH_MAX, "%s/%s", folder, temporary);
    return mkstemp(name);
}

static enum err check_folder(const struct cli_output *o, struct fault *why)
{
    char folder[LONGEST_FOLDER] = "", name[PATH_MAX];
    const int fd = create_beside(o->path, name);
    const int error = errno;
    struct stat st;

    if (fd >= 0) {
        close(fd);
        unlink(name);
        return ERR_OK;
    }
    folder_of(o->path, folder);
    if (error == ENOENT || (error == ENOTDIR && stat(folder, &st)))
        return fault_set(why, ERR_NOT_FOUND, "output",
                         "the output folder \"%.200s\" does not exist; create it first", folder);
    if (error == ENOTDIR)
        return fault_set(why, ERR_NOT_FOUND, "output", "the output folder \"%.200s\" is a file",
                         folder);
    return fault_set(why, ERR_IO, "output", "cannot write to the output folder \"%.200s\": %s",
                     folder, strerror(error));
}

enum err cli_output_check(struct cli_output *o, struct fault *why)
{
    const size_t n = strlen(o->path);
    const mode_t mask = umask(0);
    struct stat st;
    enum err e;

    umask(mask);
    o->mode = 0666 & ~mask;
    o->standard = !strcmp(o->path, "-");
    o->format = CODEC_PNG;
    // A file size limit must fail the write, not kill the program.
    signal(SIGXFSZ, SIG_IGN);
    if (o->standard)
        return check_standard_output(o, why);
    if (!n)
        return fault_set(why, ERR_INVALID, "output", "the name of the output file is empty");
    if (o->path[n - 1] == '/' || (!stat(o->path, &st) && S_ISDIR(st.st_mode)))
        return fault_set(why, ERR_INVALID, "output",
                         "the output \"%.100s\" is a folder; give a file name, such as "
                         "%.100s%sout.png",
                         o->path, o->path, o->path[n - 1] == '/' ? "" : "/");
    e = check_format(o, why);
    // Devices and pipes are written to directly, not replaced.
    if (e || (!stat(o->path, &st) && !S_ISREG(st.st_mode)))
        return e;
    return check_folder(o, why);
}

// ---- writing ----------------------------------------------------------------------------------

static bool write_all(int fd, const void *data, size_t size)
{
    const char *at = data;

    while (size) {
        const ssize_t n = write(fd, at, size);
        if (n < 0 && errno != EINTR)
            return false;
        at += n < 0 ? 0 : n;
        size -= n < 0 ? 0 : (size_t)n;
    }
    return true;
}

// Writes a temporary file and renames it. Keeps the permissions of an existing file.
static bool replace(const char *path, mode_t mode, const void *data, size_t size)
{
    char name[PATH_MAX], real[PATH_MAX];
    struct stat st;

    if (realpath(path, real)) // keeps a symbolic link and replaces its target
        path = real;
    if (!stat(path, &st))
        mode = st.st_mode & 07777;
    const int fd = create_beside(path, name);
    if (fd < 0)
        return false;
    bool ok = write_all(fd, data, size) && !fchmod(fd, mode);
    ok = !close(fd) && ok;
    ok = ok && !rename(name, path);
    if (!ok) {
        const int error = errno;
        unlink(name);
        errno = error;
    }
    return ok;
}

static bool write_into(const char *path, const void *data, size_t size)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    const bool ok = fd >= 0 && write_all(fd, data, size);

    return fd < 0 ? false : !close(fd) && ok;
}

enum err cli_output_write(const struct cli_output *o, const char *path, const void *data,
                          size_t size, struct fault *why)
{
    struct stat st;
    bool ok;

    errno = 0;
    if (o->standard)
        ok = write_all(STDOUT_FILENO, data, size);
    else if (!stat(path, &st) && !S_ISREG(st.st_mode))
        ok = write_into(path, data, size);
    else
        ok = replace(path, o->mode, data, size);
    if (ok)
        return ERR_OK;
    return fault_set(why, ERR_IO, "output", "cannot write %s: %s",
                     o->standard ? "standard output" : fault_path(path), strerror(errno));
}
