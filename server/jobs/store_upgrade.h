// Databases that older programs wrote. Called by store_sqlite.c when it opens one.
#ifndef IMAGEND_STORE_UPGRADE_H
#define IMAGEND_STORE_UPGRADE_H

#include "err.h"

struct job;
struct sqlite3;
struct store;

enum { STORE_OLDEST = 1 };

// The table of version 1, to copy a damaged database into.
extern const char store_schema_1[];

// Reads every job of a version 1 database's table, which has been renamed to job_1, and gives it to
// put. The table goes, unless some of its rows are damaged: these stay in it. Errors: IO, NO_MEMORY
// and those of put.
enum err store_upgrade(struct sqlite3 *db,
                       enum err (*put)(struct store *s, const struct job *j, struct fault *why),
                       struct store *s, struct fault *why);

#endif
