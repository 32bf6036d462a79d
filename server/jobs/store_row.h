// Jobs as rows of a database: the columns, their texts, and reading them. Shared by the stores with
// a database; they differ in how a value is fetched.
#ifndef IMAGEND_STORE_ROW_H
#define IMAGEND_STORE_ROW_H

#include "job.h"

// The columns of a job, in the order of every statement.
#define SQL_COLUMNS                                                                                \
    "id, token, state, spec, used, images, created, started, finished, expires, fault, message, "  \
    "webhook_tries, webhook_next, owner, idempotency_key, seq"

// The positions of the columns in SQL_COLUMNS.
enum store_column {
    COL_ID,
    COL_TOKEN,
    COL_STATE,
    COL_SPEC,
    COL_USED,
    COL_IMAGES,
    COL_CREATED,
    COL_STARTED,
    COL_FINISHED,
    COL_EXPIRES,
    COL_FAULT,
    COL_MESSAGE,
    COL_WEBHOOK_TRIES,
    COL_WEBHOOK_NEXT,
    COL_OWNER,
    COL_KEY,
    COL_SEQ
};

enum { STORE_MAX_EDGE = 65536 }; // of an image

// The texts of a job's row. Owner: the caller frees them. False: out of memory.
struct store_texts {
    char *spec, *used, *images;
};
bool store_texts_make(struct store_texts *t, const struct job *j);
bool store_texts_change(struct store_texts *t, const struct job *j); // without spec
void store_texts_deinit(struct store_texts *t);

// A row that a statement has found, as its library gives it. Texts are never NULL.
struct store_row {
    const char *(*text)(const void *row, int column);
    int64_t (*number)(const void *row, int column);
    const void *row;
};
// Reads SQL_COLUMNS. Owner: *out, the caller. Errors: FORMAT, NO_MEMORY.
enum err store_row_read(const struct store_row *r, struct job **out, struct fault *why);
// Reads the columns that every version has, which come first: all to COL_WEBHOOK_NEXT, except
// COL_USED and COL_IMAGES. Errors: FORMAT, NO_MEMORY.
enum err store_row_common(const struct store_row *r, struct job *j, struct fault *why);
// Sets the state and the progress of each image from its bytes, the state of the job and the
// settings.
void store_row_states(struct job *j);

#endif
