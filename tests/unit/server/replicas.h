// Two replicas that share a PostgreSQL, for the tests of what they share. Started by
// tests/api/postgres.py, which sets IMAGEND_TEST_DATABASE. What needs time is moved in the
// database.
#ifndef IMAGEND_REPLICAS_H
#define IMAGEND_REPLICAS_H

#include "blob.h"
#include "store.h"

#include <uv.h>

extern uv_loop_t loop;
extern struct store *a, *b; // the replicas
extern int hints;           // that came to b
extern int made;            // jobs so far; the number is in their ids
extern const char *models;  // of the replica that accepts or claims, as in store_call

// Opens both at once, runs the tests and closes them. Returns main's result.
int replicas_main(void (*tests)(void));

struct store_call *run(struct store *s, struct store_call *c);
struct store_call *about(enum store_op op, const struct job *j);
struct store_call *ask(enum store_op op, const char *id);
// The first field of a statement's result. Owner: static.
const char *sql(const char *text);
// All leases end, of a database that has been up for long.
void let_leases_end(void);
void empty(void); // no job and no owner is left
// Runs the loop.
void wait_for(double seconds);

struct job *make(const char *owner, int n);
// Accepts a job while room images can start. The lease is in the job.
enum err admit(struct store *s, struct job *j, int room);
// Claims; out: the jobs, whose owner is the caller. Returns their number.
int claim(struct store *s, int room, int per_owner, struct job *out[16]);
// Compares the numbers of claimed jobs after a base, as text.
void check_claim(struct store *s, int room, int per_owner, int base, const char *want);
enum err change(struct store *s, enum store_op op, struct job *j);
enum err draw(struct store *s, struct job *j, int picture, const char *bytes);
enum err end(struct store *s, struct job *j, enum job_state state);
struct job *find(struct store *s, const char *id);
void check_state(const struct job *like, enum job_state state);
struct store_call *leases(enum store_op op, const struct job *j);
struct store_lease beat(struct store *s, const struct job *j, bool progress);
struct job *watch(struct store *s, const struct job *j, bool previews, int seen);
// Removes what has expired.
void expire(struct store *s);

#endif
