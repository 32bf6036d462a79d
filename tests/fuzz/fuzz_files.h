// A temporary folder for targets that read a folder of files.
#ifndef IMAGEND_FUZZ_FILES_H
#define IMAGEND_FUZZ_FILES_H

#include "fuzz.h"

// The folder, made on the first call and removed when the program ends.
const char *fuzz_folder(void);
// Write a file of it.
void fuzz_write(const char *name, const void *data, size_t size);

#endif
