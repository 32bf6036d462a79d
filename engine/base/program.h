// The program's version and the location of its files. Called by the commands at startup. Thread:
// any, unless noted otherwise.
#ifndef IMAGEND_PROGRAM_H
#define IMAGEND_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>

// The project's version from meson.build, such as "1.2.3".
extern const char program_version[];

// The model to load if none is named, the first that exists of: $IMAGEND_MODEL;
// share/imagend/models/default under the executable's prefix; models/default next to its build
// folder; the folder configured for `meson install`; models/default in the working directory. If
// none exists, the configured folder, for the error message. Thread: one at a time; each call
// overwrites the path.
const char *program_default_model(void);

// imagend's folder in one of the user's folders, by the XDG base directory specification:
// $variable/imagend, or $HOME/fallback/imagend. False if neither is an absolute path.
bool program_user_folder(const char *variable, const char *fallback, char *out, size_t n);

#endif
