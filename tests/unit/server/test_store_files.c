// The files of SQLite's store: images and input images are private, whole or not there, and of this
// process alone.
#include "one_store.h"
#include "test.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

// Nobody else on this machine reads what was drawn; a file that is not what its row says is not
// offered; and what a client was waiting for is not drawn again.
static void test_files(void)
{
    struct job *j = make('1', 1000), *gone = make('2', 1000);
    struct stat st;
    char path[200];

    open_store();
    tell(STORE_ACCEPT, j);
    draw(j, 0, "RIFF....WEBP");
    draw(j, 1, "RIFF....WEBP");
    end(j, JOB_DONE);
    gone->spec.durable = false;
    tell(STORE_ACCEPT, gone);
    draw(gone, 0, "RIFF....WEBP");
    image_path(path, '1', 0);
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0600);
    snprintf(path, sizeof path, "%s/images", folder);
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0700);
    close_store();
    image_path(path, '1', 1);
    CHECK_INT(truncate(path, 11), 0);
    open_store();
    check_stats(1, 1, 12);
    image_path(path, '2', 0);
    CHECK_INT(access(path, F_OK), -1);
    struct store_call *c = run(ask(STORE_FIND, j->id));
    CHECK_INT(c->n, 1);
    CHECK_INT(c->jobs[0]->picture[0].state, JOB_DONE);
    CHECK_INT(c->jobs[0]->picture[1].state, JOB_FAILED);
    CHECK_INT(c->jobs[0]->picture[2].state, JOB_FAILED);
    store_call_free(c);
    check_digits(run(ask(STORE_REMOVE, j->id)), "1");
    for (int i = 0; i < 2; i++) {
        image_path(path, '1', i);
        CHECK_INT(access(path, F_OK), -1);
    }
    close_store();
    job_free(&j);
    job_free(&gone);
}

// An unfinished job generates a damaged image again; the new file is as good as any other.
static void test_replaced(void)
{
    struct job *j = make('1', 1000), *found;
    struct store_call *c;
    struct blob *b;
    char path[200];

    open_store();
    tell(STORE_ACCEPT, j);
    draw(j, 0, "RIFF....WEBP");
    draw(j, 1, "RIFF....WEBP");
    close_store();
    for (int i = 0; i < 2; i++) {
        image_path(path, '1', i);
        CHECK_INT(truncate(path, 11), 0);
    }
    open_store();
    check_stats(1, 0, 0);
    c = run(ask(STORE_CLAIM, ""));
    CHECK_INT(c->n, 1);
    CHECK_INT(c->jobs[0]->picture[0].state, JOB_QUEUED);
    CHECK_INT(c->jobs[0]->picture[1].state, JOB_QUEUED);
    found = c->jobs[0];
    draw(found, 0, "RIFF....WEBP+");
    end(found, JOB_DONE);
    store_call_free(c);
    check_stats(1, 1, 13);
    c = run(ask(STORE_FIND, j->id));
    CHECK_INT(c->n, 1);
    CHECK_INT(c->jobs[0]->picture[0].state, JOB_DONE);
    CHECK_INT(c->jobs[0]->picture[0].bytes, 13);
    CHECK_INT(c->jobs[0]->picture[1].state, JOB_FAILED); // not replaced
    store_call_free(c);
    b = image(j, 0);
    CHECK(b && b->size == 13);
    blob_unref(&b);
    check_digits(run(ask(STORE_REMOVE, j->id)), "1");
    check_stats(0, 0, 0);
    close_store();
    job_free(&j);
}

// An image that is written ahead of its call is taken as it is; one that could not be written then
// is written by the call, and one that is not needed does not stay.
static void test_ahead(void)
{
    struct job *j = make('1', 1000);
    struct blob *b = bytes_of("RIFF....WEBP"), *found;
    struct rlimit before, little;
    struct stat st, later;
    char path[200];

    open_store();
    tell(STORE_ACCEPT, j);
    image_path(path, '1', 0);
    CHECK(store->ops->write_image(store, j, 0, b));
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0600);
    store->ops->drop_image(store, j, 0);
    CHECK_INT(access(path, F_OK), -1);
    CHECK_INT(getrlimit(RLIMIT_FSIZE, &before), 0);
    little = (struct rlimit){5, before.rlim_max};
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR && !setrlimit(RLIMIT_FSIZE, &little));
    CHECK(!store->ops->write_image(store, j, 0, b));
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &before), 0);
    CHECK_INT(access(path, F_OK), -1);
    draw(j, 0, "RIFF....WEBP");
    image_path(path, '1', 1);
    CHECK(store->ops->write_image(store, j, 1, b));
    CHECK(!stat(path, &st));
    j->picture[1] = j->picture[0];
    struct store_call *c = about(STORE_DRAWN, j);
    c->picture = 1;
    c->image = blob_ref(b);
    c->written = true;
    CHECK_MSG(!run(c)->why.code, "%s", c->why.msg);
    store_call_free(c);
    CHECK(!stat(path, &later) && later.st_ino == st.st_ino);
    check_stats(1, 0, 24);
    close_store();
    open_store();
    for (int i = 0; i < 2; i++) {
        found = image(j, i);
        CHECK(found && found->size == 12);
        blob_unref(&found);
    }
    check_digits(run(ask(STORE_REMOVE, j->id)), "1");
    CHECK_INT(access(path, F_OK), -1);
    close_store();
    blob_unref(&b);
    job_free(&j);
}

static bool begins_with_a(void *ctx, const char *name)
{
    CHECK_INT(strlen(name), 64);
    return *name == 'a';
}

// Of the input images that no job wants, nothing stays; a wanted one may just be being written.
static void test_sweep(void)
{
    static const char *const end[] = {"", ".7.part"};
    char path[200];

    open_store();
    for (int i = 0; i < 4; i++) {
        char name[80];
        struct blob *file = blob_create((uint8_t *)strdup("image"), 5);
        struct fault why = {0};
        snprintf(name, sizeof name, "%064d%s", 0, end[i % 2]);
        memset(name, i < 2 ? 'a' : 'b', 64);
        CHECK_MSG(!store->ops->put_file(store, name, file, &why), "%s", why.msg);
        blob_unref(&file);
    }
    store->ops->sweep_files(store, begins_with_a, NULL);
    for (int i = 0; i < 4; i++) {
        const int n = snprintf(path, sizeof path, "%s/inputs/%064d%s", folder, 0, end[i % 2]);
        memset(path + n - 64 - (int)strlen(end[i % 2]), i < 2 ? 'a' : 'b', 64);
        CHECK_INT(access(path, F_OK), i < 2 ? 0 : -1);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/inputs/%064d%s", folder, 0, end[i]);
        memset(path + strlen(folder) + 8, 'a', 64);
        CHECK_INT(unlink(path), 0);
    }
    close_store();
}

// A file that was written only in part, as on a full disk, does not stay.
static void test_no_room(void)
{
    char name[65], path[200];
    struct rlimit before, little;
    struct blob *file = blob_create(calloc(1, 5000), 5000), *out = NULL;
    struct fault why = {0};

    snprintf(name, sizeof name, "%064d", 0);
    open_store();
    CHECK_INT(getrlimit(RLIMIT_FSIZE, &before), 0);
    little = (struct rlimit){1000, before.rlim_max};
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR && !setrlimit(RLIMIT_FSIZE, &little));
    CHECK_INT(store->ops->put_file(store, name, file, &why), ERR_IO);
    CHECK_MSG(strstr(why.msg, "cannot write the image") != NULL, "%s", why.msg);
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &before), 0);
    CHECK_INT(store->ops->get_file(store, name, &out, &why), ERR_NOT_FOUND);
    CHECK_INT(store->ops->file_size(store, name), 0);
    snprintf(path, sizeof path, "%s/inputs", folder);
    CHECK_INT(rmdir(path), 0); // and no part of it either
    blob_unref(&file);
    blob_unref(&out);
    close_store();
}

static void test_one_process(void)
{
    struct store *second = NULL;
    struct fault why = {0};

    open_store();
    CHECK_INT(store_sqlite_open(folder, &loop, &second, &why), ERR_BUSY);
    CHECK(!second && !strcmp(why.param, "data-dir"));
    close_store();
}

int main(void)
{
    char command[100];

    CHECK(mkdtemp(folder) != NULL);
    CHECK_INT(uv_loop_init(&loop), 0);
    durable = true;
    test_files();
    test_replaced();
    test_ahead();
    test_sweep();
    test_no_room();
    test_one_process();
    CHECK_INT(uv_loop_close(&loop), 0);
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK_INT(system(command), 0);
    return test_end();
}
