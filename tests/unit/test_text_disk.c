// Text states on disk: what was put is found, by model and prompt alone; damaged files are ignored
// and replaced; the limit holds; nobody else can read the folder.
#include "test.h"
#include "text_disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FLOATS = 100, FILE_BYTES = 48 + 16 + FLOATS * 4 + 1 }; // for a prompt of one letter

static char top[64], dir[80], path[512];

static struct text_disk *open_disk(uint64_t limit, uint64_t model)
{
    struct text_disk *d = NULL;
    struct fault why = {0};

    CHECK_MSG(!text_disk_open(
                  &(struct text_disk_params){
                      .dir = dir, .limit = limit, .model = {model, 1}, .floats = FLOATS},
                  &d, &why),
              "%s", why.msg);
    return d;
}

static void put(struct text_disk *d, const char *prompt, float value)
{
    float states[FLOATS];

    for (int i = 0; i < FLOATS; i++)
        states[i] = value + (float)i;
    text_disk_put(d, prompt, states, (const int[2]){3, 4});
}

static bool has(struct text_disk *d, const char *prompt, float value)
{
    float states[FLOATS] = {0};
    int counts[2] = {0};
    const bool found = text_disk_get(d, prompt, states, counts);

    for (int i = 0; found && i < FLOATS; i++)
        CHECK(states[i] == value + (float)i);
    CHECK(!found || (counts[0] == 3 && counts[1] == 4));
    return found;
}

// The files in the folder; the last one's path goes to `path`.
static int files(void)
{
    DIR *d = opendir(dir);
    int n = 0;

    for (const struct dirent *f; d && (f = readdir(d));)
        if (f->d_name[0] != '.') {
            n++;
            snprintf(path, sizeof path, "%s/%s", dir, f->d_name);
        }
    if (d)
        closedir(d);
    return n;
}

static void check_found(void)
{
    struct text_disk *d = open_disk(1 << 20, 7), *other = open_disk(1 << 20, 8);
    struct stat st;

    CHECK(!has(d, "a", 1));
    put(d, "a", 1);
    put(d, "", 2);
    CHECK(has(d, "a", 1) && has(d, "", 2) && !has(d, "b", 1) && !has(other, "a", 1));
    put(d, "a", 3);
    CHECK(has(d, "a", 3));
    CHECK_INT(files(), 2);
    CHECK(!stat(dir, &st) && (st.st_mode & 0777) == 0700);
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0600);
    text_disk_close(&other);
    text_disk_close(&d);
    CHECK(!chmod(dir, 0755));
    d = open_disk(1 << 20, 7);
    CHECK(has(d, "a", 3) && !stat(dir, &st) && (st.st_mode & 0777) == 0700);
    text_disk_close(&d);
}

// Every byte matters, and so does the length.
static void check_damage(void)
{
    struct text_disk *d = open_disk(1 << 20, 9);
    struct stat st;

    CHECK_INT(files(), 2);
    CHECK(!unlink(path) && files() == 1 && !unlink(path));
    put(d, "a", 1);
    CHECK_INT(files(), 1);
    CHECK(!stat(path, &st) && st.st_size == FILE_BYTES);
    for (off_t at = 0; at < FILE_BYTES; at += 7) {
        char byte = 0;
        const int fd = open(path, O_RDWR);
        CHECK(pread(fd, &byte, 1, at) == 1);
        byte ^= 0x40;
        CHECK(pwrite(fd, &byte, 1, at) == 1);
        close(fd);
        CHECK_MSG(!has(d, "a", 1) && files() == 0, "byte %ld", (long)at);
        put(d, "a", 1);
        CHECK(has(d, "a", 1) && files() == 1);
    }
    for (off_t size = 0; size < FILE_BYTES; size += 50) {
        CHECK(!truncate(path, size));
        CHECK_MSG(!has(d, "a", 1) && files() == 0, "size %ld", (long)size);
        put(d, "a", 1);
        CHECK_INT(files(), 1);
    }
    // A link is not followed.
    CHECK(!unlink(path) && !symlink("/etc/passwd", path));
    CHECK(!has(d, "a", 1));
    put(d, "a", 1);
    CHECK(has(d, "a", 1));
    text_disk_close(&d);
}

static void set_age(const char *prompt, struct text_disk *d, int seconds)
{
    // put writes the newest file, which is the only one with the present time
    const struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};

    put(d, prompt, 1);
    DIR *list = opendir(dir);
    for (const struct dirent *f; list && (f = readdir(list));) {
        struct stat st;
        if (f->d_name[0] != '.' && !fstatat(dirfd(list), f->d_name, &st, 0) &&
            st.st_mtim.tv_sec > 1000000)
            CHECK(!utimensat(dirfd(list), f->d_name, times, 0));
    }
    if (list)
        closedir(list);
}

static void check_limit(void)
{
    struct text_disk *d = open_disk(3 * FILE_BYTES, 10);

    while (files())
        unlink(path);
    set_age("a", d, 1000);
    set_age("b", d, 2000);
    set_age("c", d, 3000);
    CHECK(files() == 3 && has(d, "a", 1)); // now the newest
    put(d, "d", 1);
    CHECK_INT(files(), 3);
    CHECK(has(d, "a", 1) && !has(d, "b", 1) && has(d, "c", 1) && has(d, "d", 1));
    text_disk_close(&d);
    // A file that is larger than the limit is not written; an old temporary one counts.
    d = open_disk(FILE_BYTES - 1, 10);
    put(d, "e", 1);
    CHECK(!has(d, "e", 1) && files() == 3);
    text_disk_close(&d);
    snprintf(path, sizeof path, "%s/%032d.states.123", dir, 0);
    const int fd = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0 && !ftruncate(fd, 2 * FILE_BYTES) && !close(fd));
    d = open_disk(2 * FILE_BYTES, 10);
    put(d, "f", 1);
    CHECK(files() <= 2);
    text_disk_close(&d);
}

static void check_refused(void)
{
    struct text_disk *d;
    struct fault why = {0};
    char file[100];

    snprintf(file, sizeof file, "%s/file", top);
    close(open(file, O_WRONLY | O_CREAT, 0600));
    CHECK_INT(text_disk_open(&(struct text_disk_params){.dir = file}, &d, &why), ERR_IO);
    CHECK(strstr(why.msg, "cannot be used"));
    snprintf(file, sizeof file, "%s/none/sub", top);
    CHECK_INT(text_disk_open(&(struct text_disk_params){.dir = file}, &d, &why), ERR_IO);
    snprintf(file, sizeof file, "%s/link", top);
    CHECK(!symlink(dir, file));
    CHECK_INT(text_disk_open(&(struct text_disk_params){.dir = file}, &d, &why), ERR_IO);
}

int main(void)
{
    snprintf(top, sizeof top, "%s/imagend-text-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(top))
        return 1;
    snprintf(dir, sizeof dir, "%s/text", top);
    check_found();
    check_damage();
    check_limit();
    check_refused();
    while (files())
        unlink(path);
    char command[100];
    snprintf(command, sizeof command, "rm -r '%s'", top);
    return system(command) ? 1 : test_end();
}
