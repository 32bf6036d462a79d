// Error messages for unreadable files: missing ones, dangling links, and files whose content does
// not match their names.
#include "buf.h"
#include "file.h"
#include "json.h"
#include "test.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void guesses(void)
{
    static const char zeros[64];
    static const struct {
        const char *head;
        size_t n;         // 0: strlen
        const char *says; // NULL: nothing is recognised
    } rows[] = {
        {"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 8610000000\n", 0,
         "a Git LFS pointer to a file of 8610000000 bytes"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", 0, "a Git LFS pointer"},
        {"version https://git-lfs.github.com/spec/v1\nsize 99999999999999999999999999999\n", 0,
         "a Git LFS pointer"},
        {"<!DOCTYPE html>\n<html>", 0, "a web page"},
        {"\n  <HTML lang=\"en\">", 0, "a web page"},
        {"\xef\xbb\xbf<!doctype HTML>", 0, "a web page"},
        {"<?xml version=\"1.0\"?><Error><Code>AccessDenied", 0, "an XML document"},
        {"PK\3\4....", 0, "a zip archive"},
        {"\x80\2}q\1", 0, "a Python pickle"},
        {"\x89HDF\r\n\x1a\n", 0, "an HDF5 file"},
        {"GGUF\3", 0, "a GGUF file"},
        {"\x1f\x8b\x08", 0, "compressed with gzip"},
        {"\xff\xfe{\0", 4, "UTF-16"},
        {zeros, sizeof zeros, "filled with zeros"},
        {"", 0, "empty"},
        {"{\"d_model\": 64}", 0, NULL},
        {"\x10\0\0\0\0\0\0\0{\"a\":", 13, NULL},
        {"<", 0, NULL},
        {" ", 0, NULL},
    };
    char is[200];

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const size_t n = rows[i].n ? rows[i].n : strlen(rows[i].head);
        const bool found = file_guess(rows[i].head, n, is, sizeof is);
        CHECK_MSG(found == (rows[i].says != NULL), "row %zu", i);
        if (found)
            CHECK_MSG(strstr(is, rows[i].says) != NULL, "%s", is);
    }
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fputs(text, f) >= 0);
    if (f)
        fclose(f);
}

static void check_read(const char *path, enum err e, const char *says)
{
    struct buf b = {0};
    struct fault why = {0};

    CHECK_INT(buf_read_file(&b, path, 100, &why), e);
    CHECK_MSG(strstr(why.msg, says) != NULL, "%s", why.msg);
    buf_deinit(&b);
}

static void opening(void)
{
    char dir[] = "/tmp/imagend-file-XXXXXX";
    struct json_t *doc = NULL;
    struct fault why = {0};

    if (!mkdtemp(dir) || chdir(dir))
        abort();
    CHECK(!mkdir("blobs", 0700) && !symlink("blobs/gone", "link") && !symlink("none", "dir"));
    check_read("missing", ERR_NOT_FOUND, "missing: No such file or directory");
    check_read("link", ERR_NOT_FOUND,
               "link is a symbolic link to blobs/gone, which does not exist");
    check_read("dir/file", ERR_NOT_FOUND, "dir is a symbolic link to none");
    check_read("blobs", ERR_IO, "blobs is not a regular file");
    write_file("page.json", "<html><body>Sign in</body></html>");
    CHECK_INT(json_parse_file("page.json", 1000, &doc, &why), ERR_FORMAT);
    CHECK_MSG(strstr(why.msg, "page.json is a web page") != NULL, "%s", why.msg);
    write_file("empty.json", "");
    CHECK_INT(json_parse_file("empty.json", 1000, &doc, &why), ERR_FORMAT);
    CHECK_STR(why.msg, "empty.json is empty; download it again");
    write_file("bad.json", "\x0e\x0a\x05<pad>\x15");
    CHECK_INT(json_parse_file("bad.json", 1000, &doc, &why), ERR_FORMAT);
    CHECK_STR(why.msg, "bad.json is a binary file, not JSON");
    write_file("bad.json", "{\"a\": }");
    CHECK_INT(json_parse_file("bad.json", 1000, &doc, &why), ERR_FORMAT);
    CHECK_MSG(strstr(why.msg, "bad.json: line 1") != NULL, "%s", why.msg);
    // As large as is allowed, and one byte more.
    for (size_t most = 7; most <= 8; most++) {
        struct buf b = {0};
        CHECK_INT(buf_read_file(&b, "bad.json", most - 1, &why), most == 8 ? ERR_OK : ERR_FORMAT);
        CHECK(most < 8 || b.len == 7);
        buf_deinit(&b);
    }
    for (const char *const *f =
             (const char *const[]){"page.json", "empty.json", "bad.json", "link", "dir", NULL};
         *f; f++)
        unlink(*f);
    rmdir("blobs");
    CHECK(!chdir("/") && !rmdir(dir));
}

int main(void)
{
    guesses();
    opening();
    return test_end();
}
