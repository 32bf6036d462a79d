// The vocabulary.json that a model folder may have: what the model knows. Lists the names of the
// things that it draws, and tells prompts that name none of them. Written by
// training/known.py. Called by the engine and the routes. Thread: any; a vocabulary never changes.
#ifndef IMAGEND_VOCABULARY_H
#define IMAGEND_VOCABULARY_H

#include "err.h"

#include <stddef.h>

struct vocabulary;

enum {
    VOCABULARY_MAX_BYTES = 1 << 20, // of the file
    VOCABULARY_NEAREST = 128,       // bytes of a list of nearest names, with its NUL
};

// {"format": 1, "nouns": [{"name": "cat", "words": ["cat", "kitten"], "languages": {"de":
// ["katze"]}}], "shapes": [likewise], "other_words": ["on the beach", "red"]}. other_words name no
// thing: a prompt of these alone is complete. Only format and name are required. All other keys are
// for clients.
// what: names the text in messages. Owner: the caller gives *out back with vocabulary_unref.
// Errors: FORMAT, UNSUPPORTED (another format), NO_MEMORY.
enum err vocabulary_parse(const char *text, size_t n, const char *what,
                          const struct vocabulary **out, struct fault *why);
// That of a model folder; *out is NULL if it has none. Errors: also IO.
enum err vocabulary_read(const char *folder, const struct vocabulary **out, struct fault *why);
// Another owner. NULL-safe, like vocabulary_unref.
const struct vocabulary *vocabulary_ref(const struct vocabulary *v);
void vocabulary_unref(const struct vocabulary **v);

// The whole file, as compact JSON. Owner: v.
const char *vocabulary_json(const struct vocabulary *v);
// The number of nouns and shapes.
int vocabulary_things(const struct vocabulary *v);
// Lists the names that are nearest to the prompt's words by spelling, "cat, car or hat", if the
// prompt names nothing that the model knows. "": it does, or it names nothing at all.
void vocabulary_miss(const struct vocabulary *v, const char *prompt,
                     char nearest[static VOCABULARY_NEAREST]);

#endif
