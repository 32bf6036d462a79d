// Reads what the environment and the words of a prompt ask of the fake engine, see fake_engine.c.
#ifndef IMAGEND_FAKE_ASKED_H
#define IMAGEND_FAKE_ASKED_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>

// Checks a promise of engine.h's callers; aborts if it is broken.
void fake_demand(bool kept, const char *promise);
// The error with this name in err.h; OK: none.
enum err fake_code(const char *name, size_t n);
// The error that "[word]" (def) or "[word code]" in a prompt asks for; OK: none.
enum err fake_asked(const char *prompt, const char *word, enum err def);
// A number; def: it is not set.
double fake_env(const char *name, double def);
// FAKE_FAULT; def: it is not set.
const char *fake_fault(const char *def);
void fake_sleep(double ms);
// FAKE_HELD: the step of the first stage at which images wait; -1: they do not.
int fake_held(void);

#endif
