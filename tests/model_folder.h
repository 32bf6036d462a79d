// A temporary cascade for tests of cascade.json and presets: base and sr are the tiny golden
// models, base-fast is base with a DDIM scheduler and without its own text encoder.
#ifndef IMAGEND_MODEL_FOLDER_H
#define IMAGEND_MODEL_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

// The folder, made on the first call and removed when the program ends; it has no cascade.json yet.
// Ends the program when it cannot be made.
const char *model_folder(const char *golden);
// A file of it, name such as "base-fast/unet/config.json"; folders are made, what is there is
// replaced.
void model_folder_write(const char *name, const void *data, size_t size);
// The same with a golden file, in which the text `from` becomes `to`.
void model_folder_edit(const char *name, const char *golden_name, const char *from, const char *to);

// Another network for the base stage: base's own behind a DDIM scheduler; halved, every weight is
// half as large, so that it draws other images.
void model_folder_network(const char *name, bool halved);
// Damages its weights: the last number of the file, a half, is not one any more.
void model_folder_break(const char *name);

#endif
