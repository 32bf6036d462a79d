// For store_sqlite.c: what to do with a database whose pages are damaged.
#ifndef IMAGEND_STORE_SALVAGE_H
#define IMAGEND_STORE_SALVAGE_H

#include "err.h"

#include <stdbool.h>

struct sqlite3;

// Whether the structure of the database is broken somewhere.
bool salvage_needed(struct sqlite3 *db);
// Copy the rows of table job that can be read into a new database of the same schema, which takes
// the place of the file at path; the damaged one stays beside it. Closes *db.
// Errors: FORMAT (no row can be read; everything stays as it is), IO, NO_MEMORY.
enum err salvage_run(struct sqlite3 **db, const char *path, const char *schema, struct fault *why);

#endif
