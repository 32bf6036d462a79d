// Input images that jobs refer to, each kept once however many jobs have it, under the SHA-256 of
// its bytes; gone with the last of these jobs. On disk where the store holds files, else in memory.
// Thread: the loop's, except attachments_get and attachments_put.
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

// most: bytes of all together. Errors: NO_MEMORY.
enum err attachments_create(struct store *store, size_t most, struct attachments **out);
void attachments_destroy(struct attachments **a); // files stay
void attachments_set_most(struct attachments *a, size_t most);

// One more reference to a name; file is what is kept under it, of which the reference is taken over
// from the caller, also on error. Errors: BUSY (all together would be too large), NO_MEMORY.
enum err attachments_add(struct attachments *a, const char *name, struct blob *file,
                         struct fault *why);
// Put a file that was added on disk, where the store holds files, so that it needs no memory. A
// pool thread's; the loop must hold a reference meanwhile. Errors: IO, NO_MEMORY.
enum err attachments_put(struct attachments *a, const char *name, struct fault *why);
// A reference that a job of the store has, from before this process began.
enum err attachments_adopt(struct attachments *a, const char *name);
// Once every job is adopted: remove files that no job refers to.
void attachments_sweep(struct attachments *a);
// One reference less; the last one removes the file. name: NULL for nothing.
void attachments_release(struct attachments *a, const char *name);

// Thread: any that knows of a reference. Owner: *out is a new reference. Errors: NOT_FOUND, IO.
enum err attachments_get(struct attachments *a, const char *name, struct blob **out,
                         struct fault *why);
// The input image of a job with its pixels; *out stays NULL for a job without one. Thread: any.
// Owner: the caller destroys *out. Errors: as attachments_get and job_input_decode.
enum err attachments_open(struct attachments *a, const struct job_spec *spec,
                          struct picture_edit **out, struct fault *why);
size_t attachments_bytes(const struct attachments *a);

#endif
