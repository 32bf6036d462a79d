// The program's version and the location of its own files. Called by the commands at startup.
// Thread: any, unless said otherwise.
#ifndef IMAGEND_PROGRAM_H
#define IMAGEND_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>

// The project's version in meson.build, such as "1.2.3".
extern const char program_version[];

// The model to load when none is named: $IMAGEND_MODEL; share/imagend/models/default under the
// prefix that the executable is in; models/default beside its build folder; the folder that `meson
// install` was configured for; models/default below the working directory. When there is none of
// these, the installed folder, for the error message. Thread: one at a time; the path is
// overwritten by the next call.
const char *program_default_model(void);

// imagend's folder below the user's folder for a kind of file, by the XDG base directory
// specification: $variable/imagend, or $HOME/fallback/imagend. False when neither is absolute.
bool program_user_folder(const char *variable, const char *fallback, char *out, size_t n);

#endif
