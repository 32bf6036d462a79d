// See file.h. Source: the Git LFS pointer specification, and the magic numbers of formats that are
// often found in model folders by mistake.
#include "file.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

// Whether the path, or a folder on the way to it, is a dangling symbolic link; at: that link.
static bool dangling(const char *path, char *at, size_t n)
{
    struct stat st;

    if ((size_t)snprintf(at, n, "%s", path) >= n)
        return false;
    for (;;) {
        if (!lstat(at, &st))
            return S_ISLNK(st.st_mode) && stat(at, &st);
        char *slash = strrchr(at, '/');
        if (!slash || slash == at)
            return false;
        *slash = 0;
    }
}

enum err file_open_error(const char *path, int error, struct fault *why)
{
    char at[1024], target[256];

    if (error != ENOENT && error != ENOTDIR && error != ELOOP)
        return fault_set(why, ERR_IO, path, "%s: %s", fault_path(path), strerror(error));
    if (!dangling(path, at, sizeof at))
        return fault_set(why, ERR_NOT_FOUND, path, "%s: %s", fault_path(path), strerror(error));
    const ssize_t n = readlink(at, target, sizeof target - 1);
    target[n > 0 ? n : 0] = 0;
    return fault_set(why, ERR_NOT_FOUND, path,
                     "%.120s is a symbolic link to %.60s, which does not exist; copy the model "
                     "together with the targets of its links (cp -rL)",
                     fault_path(at), target);
}

static bool begins(const void *head, size_t n, const char *with)
{
    const size_t m = strlen(with);

    return n >= m && !strncasecmp(head, with, m);
}

// The "size 123" line of a Git LFS pointer; 0: not stated.
static unsigned long long lfs_size(const char *s, size_t n)
{
    static const char key[] = "\nsize ";
    const char *at = memmem(s, n, key, sizeof key - 1);
    unsigned long long size = 0;

    for (at = at ? at + sizeof key - 1 : s + n; at < s + n && *at >= '0' && *at <= '9'; at++)
        size = size < UINT64_MAX / 100 ? 10 * size + (unsigned long long)(*at - '0') : size;
    return size;
}

static bool all_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

static const struct {
    const char *magic;
    size_t n;
    const char *is;
} magics[] = {
    {"PK\3\4", 4, "a zip archive, such as a PyTorch checkpoint; a .safetensors file is needed"},
    {"\x80\2", 2, "a Python pickle, such as a PyTorch checkpoint; a .safetensors file is needed"},
    {"\x89HDF\r\n", 6, "an HDF5 file; a .safetensors file is needed"},
    {"GGUF", 4, "a GGUF file; a .safetensors file is needed"},
    {"\x1f\x8b", 2, "compressed with gzip; decompress it"},
    {"\x28\xb5\x2f\xfd", 4, "compressed with zstd; decompress it"},
    {"\xff\xfe", 2, "text in UTF-16; save it as UTF-8"},
    {"\xfe\xff", 2, "text in UTF-16; save it as UTF-8"},
};

bool file_guess(const void *head, size_t n, char *out, size_t out_size)
{
    const char *s = head;

    if (!n) {
        snprintf(out, out_size, "empty; download it again");
        return true;
    }
    if (begins(s, n, "version https://git-lfs.github.com/spec/")) {
        snprintf(
            out, out_size,
            "a Git LFS pointer to a file of %llu bytes, not that file; run \"git lfs pull\" in "
            "the model's folder",
            lfs_size(s, n));
        return true;
    }
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++)
        if (n >= magics[i].n && !memcmp(s, magics[i].magic, magics[i].n)) {
            snprintf(out, out_size, "%s", magics[i].is);
            return true;
        }
    if (n >= 8 && all_zero(head, n)) {
        snprintf(out, out_size,
                 "filled with zeros, probably an unfinished download; download it again");
        return true;
    }
    while (n && strchr(" \t\r\n\xef\xbb\xbf", *s) && *s)
        s++, n--;
    if (begins(s, n, "<!doctype html") || begins(s, n, "<html") || begins(s, n, "<head")) {
        snprintf(out, out_size,
                 "a web page (HTML), not the file; download it again, logged in if the model is "
                 "gated");
        return true;
    }
    if (begins(s, n, "<?xml") || begins(s, n, "<Error>")) {
        snprintf(
            out, out_size,
            "an XML document, probably an error message of the download server; download it again");
        return true;
    }
    return false;
}

enum err file_explain(const char *path, const void *head, size_t n, enum err e, struct fault *why)
{
    char is[200];

    if (e == ERR_OK || e == ERR_NO_MEMORY ||
        !file_guess(head, n < FILE_GUESS ? n : FILE_GUESS, is, sizeof is))
        return e;
    return fault_set(why, ERR_FORMAT, path, "%s is %s", fault_path(path), is);
}
