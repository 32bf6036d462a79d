// Storage of jobs and images. The job core holds every job in memory and writes through; a store
// preserves them across restarts. Each implementation is one table of functions.
#ifndef IMAGEND_STORE_H
#define IMAGEND_STORE_H

#include "job.h"

struct store;

struct store_ops {
    const char *name;
    bool holds_images; // false: the job core keeps the images in memory
    // Insert or replace a job. Thread: loop.
    enum err (*put)(struct store *s, const struct job *j, struct fault *why);
    // Remove a job and its images; one that is not there is no error. Thread: loop.
    enum err (*remove)(struct store *s, const struct job *j, struct fault *why);
    // Thread: any. Errors: IO when the disk is full or fails.
    enum err (*put_image)(struct store *s, const char *id, int picture, enum job_format format,
                          const struct blob *image, struct fault *why);
    // Owner: *out is a new reference. Errors: NOT_FOUND, IO.
    enum err (*get_image)(struct store *s, const char *id, int picture, enum job_format format,
                          struct blob **out, struct fault *why);
    // Files under names of hexadecimal digits: input images. NULL, all of them: it holds none.
    // Thread: any; of one name, one at a time.
    enum err (*put_file)(struct store *s, const char *name, const struct blob *file,
                         struct fault *why);
    // Owner: *out is a new reference. Errors: NOT_FOUND, IO.
    enum err (*get_file)(struct store *s, const char *name, struct blob **out, struct fault *why);
    void (*remove_file)(struct store *s, const char *name);
    size_t (*file_size)(struct store *s, const char *name); // 0: it is not there
    void (*sweep_files)(struct store *s, bool (*wanted)(void *ctx, const char *name), void *ctx);
    // Call row for every job, oldest first; row takes the job over. Thread: loop.
    enum err (*load)(struct store *s, void (*row)(void *ctx, struct job *j), void *ctx,
                     struct fault *why);
    void (*close)(struct store **s);
};

struct store {
    const struct store_ops *ops;
};

enum err store_memory_open(struct store **out, struct fault *why);
// Errors: IO, FORMAT (a newer or foreign database), BUSY (another process uses the folder).
enum err store_sqlite_open(const char *dir, struct store **out, struct fault *why);

// Take over the fields of a loaded job that the store wrote. Owner: the caller frees with job_free.
struct job *job_create(void);
void job_free(struct job **j);

#endif
