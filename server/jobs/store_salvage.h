// Recovery of a database with damaged pages. Called by store_sqlite_open.c when it opens one.
#ifndef IMAGEND_STORE_SALVAGE_H
#define IMAGEND_STORE_SALVAGE_H

#include "err.h"

#include <stdbool.h>

struct sqlite3;

// Whether the structure of the database is damaged.
bool salvage_needed(struct sqlite3 *db);
// Copies the readable rows of table job into a new database of the same schema, which replaces the
// file at path; the damaged file is kept under another name. Closes *db. Errors: FORMAT (no row is
// readable; nothing changes), IO, NO_MEMORY.
enum err salvage_run(struct sqlite3 **db, const char *path, const char *schema, struct fault *why);

#endif
