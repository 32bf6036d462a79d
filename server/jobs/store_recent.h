// Ended jobs that a store has found lately, in memory. For a store of one process, which sees every
// change of a job; in a shared store, another replica might delete it. Loop thread.
#ifndef IMAGEND_STORE_RECENT_H
#define IMAGEND_STORE_RECENT_H

#include "store.h"

enum { STORE_RECENT = 128 }; // the most that are kept

struct store_recent;

struct store_recent *store_recent_create(void); // NULL: out of memory
void store_recent_destroy(struct store_recent **r);
// Answers a STORE_FIND by id, except for its statistics. False: the store has to.
bool store_recent_find(struct store_recent *r, struct store_call *c);
// Learns from a call that the store has run, also if it failed. Call it before its done.
void store_recent_learn(struct store_recent *r, const struct store_call *c);

#endif
