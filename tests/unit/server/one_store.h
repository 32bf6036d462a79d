// A store by itself, which a test asks one call after the other.
#ifndef IMAGEND_ONE_STORE_H
#define IMAGEND_ONE_STORE_H

#include "blob.h"
#include "store.h"

#include <uv.h>

#define ID "job_0123456789abcdef0123456789abcde" // and a digit: of the jobs that make makes

extern char folder[]; // of the store on disk; a template of mkdtemp at first
extern uv_loop_t loop;
extern struct store *store;
extern bool durable;         // on disk; else in memory
extern const char *database; // of the PostgreSQL store, or NULL

void open_store(void);
void close_store(void);
// Owner: the caller frees the call.
struct store_call *run(struct store_call *c);
struct store_call *about(enum store_op op, const struct job *j);
struct store_call *ask(enum store_op op, const char *id);
void tell(enum store_op op, const struct job *j);
struct blob *bytes_of(const char *s);

struct job *make(char digit, int64_t created);
void draw(struct job *j, int picture, const char *bytes);
void end(struct job *j, enum job_state state);
// The bytes of an image, or NULL. Owner: the caller.
struct blob *image(const struct job *j, int picture);
void image_path(char out[200], char digit, int picture);
// Compares the last digits of the ids that a call answered with. Frees the call.
void check_digits(struct store_call *c, const char *digits);
void check_stats(int jobs, int ended, size_t bytes);

#endif
