// The tuner: times the kernels that can take a class of shapes, and keeps the fastest for this
// process and, in a file beside the pipeline cache, for later ones. Called by the recorder and the
// choice; knows rows, not what they compute. Not for other layers. Thread: the engine's worker.
#ifndef IMAGEND_TUNE_H
#define IMAGEND_TUNE_H

#include "buf.h"
#include "err.h"
#include "hash.h"

#include <stdbool.h>
#include <stdint.h>

struct ops_device;
struct ops_call;

enum { TUNE_CLASSES = 512, TUNE_NUMBERS = 11, TUNE_BUDGET = 3 }; // BUDGET: seconds per device

// A class of shapes, and the row and build that were fastest; row -1: the estimates decide.
struct tune_choice {
    uint32_t of[TUNE_NUMBERS];
    int row, build;
};

struct tune_table {
    int count;
    struct tune_choice choice[TUNE_CLASSES];
};

// The device and program that a table is valid for.
struct tune_id {
    uint8_t uuid[16];
    uint32_t driver;
    const char *program;
    struct hash kernels; // names and code of all rows
};

struct tune_time {
    double seconds; // of one call; negative: it failed
    double spent;   // by measuring it
};
typedef struct tune_time tune_measure(struct ops_device *dev, const struct ops_call *call, int row,
                                      int build);

struct tuner {
    struct tune_id id;
    struct tune_table table;
    tune_measure *measure; // or a test's
    double left;           // seconds for more measurements
    bool thorough;         // measures everything, however long that takes
    bool measuring;
    bool dirty; // not saved yet
};

// Turns tuning on: reads the device's file. One that is damaged, or of another device, driver or
// program, is ignored, and dev->info.notice says so. thorough: without a budget, and what the file
// leaves to the estimates is measured, too. Errors: NO_MEMORY.
enum err tune_open(struct ops_device *dev, bool thorough);
void tune_close(struct ops_device *dev); // saves; NULL-safe
// If there is something new: adds it to the file. A failure costs time only.
void tune_save(struct ops_device *dev);

// Decides about the call's class if it is new, for good: by measuring, while time is left.
void tune_call(struct ops_device *dev, const struct ops_call *call);
// The choice for this call; NULL: none, or kernels are wished for.
const struct tune_choice *tune_find(const struct ops_device *dev, const struct ops_call *call);

struct tune_id tune_id_of(const struct ops_device *dev);
void tune_write(const struct tune_table *t, const struct tune_id *id, struct buf *out);
// Errors: FORMAT for a damaged text, UNSUPPORTED for a sound one with another id; *out is empty.
enum err tune_parse(const char *text, size_t n, const struct tune_id *id, struct tune_table *out);

#endif
