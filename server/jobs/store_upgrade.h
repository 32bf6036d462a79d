// Databases that older programs wrote. Called by store_sqlite_open.c when it opens one.
#ifndef IMAGEND_STORE_UPGRADE_H
#define IMAGEND_STORE_UPGRADE_H

#include "err.h"

struct sqlite3;

enum { STORE_OLDEST = 1 };

// The table of version 1, for recovering a damaged database.
extern const char store_schema_1[];

// Copies every job of a version 1 database's table, which has been renamed to job_1, into the table
// of version 2. The old one goes, unless some of its rows are damaged: these stay in it. Errors:
// IO, NO_MEMORY.
enum err store_upgrade(struct sqlite3 *db, struct fault *why);

#endif
