// Input images of jobs. Each file is stored once, named by the SHA-256 of its bytes, and deleted
// with the last job that refers to it. On disk if the store holds files, else in memory. Thread:
// the loop's, except attachments_get, attachments_open and attachments_put.
#ifndef IMAGEND_ATTACHMENTS_H
#define IMAGEND_ATTACHMENTS_H

#include "blob.h"
#include "err.h"

#include <stddef.h>

enum { ATTACHMENT_NAME = 65 }; // 64 hexadecimal digits and a NUL

struct attachments;
struct job_spec;
struct picture_edit;
struct store;

// most: maximum bytes of all files together. Errors: NO_MEMORY.
enum err attachments_create(struct store *store, size_t most, struct attachments **out);
void attachments_destroy(struct attachments **a); // keeps the files on disk
void attachments_set_most(struct attachments *a, size_t most);

// Adds a reference to a name, and its file if it is new. Owner: takes the reference to file, also
// on error. Errors: BUSY (the files together would be too large), NO_MEMORY.
enum err attachments_add(struct attachments *a, const char *name, struct blob *file,
                         struct fault *why);
// Writes an added file to disk, if the store holds files, and frees its memory. The loop must hold
// a reference meanwhile. Thread: the pool's. Errors: IO, NO_MEMORY.
enum err attachments_put(struct attachments *a, const char *name, struct fault *why);
// Adds the reference of a job loaded from the store.
enum err attachments_adopt(struct attachments *a, const char *name);
// Deletes files without references; call it after every job has been adopted.
void attachments_sweep(struct attachments *a);
// Removes a reference; the last one deletes the file. name: may be NULL.
void attachments_release(struct attachments *a, const char *name);

// Thread: any; a reference must be held. Owner: *out is a new reference. Errors: NOT_FOUND, IO.
enum err attachments_get(struct attachments *a, const char *name, struct blob **out,
                         struct fault *why);
// Decodes a job's input image; *out stays NULL for a job without one. Thread: any. Owner: the
// caller destroys *out. Errors: as attachments_get and job_input_decode.
enum err attachments_open(struct attachments *a, const struct job_spec *spec,
                          struct picture_edit **out, struct fault *why);
size_t attachments_bytes(const struct attachments *a);

#endif
