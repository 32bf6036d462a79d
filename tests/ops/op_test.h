// The harness of the operator tests: a device, random arrays that hold exactly what the storage
// can hold, tensors in channel views, and comparison against a double reference with a bound per
// element. Every test runs its rows for f32 and f16 storage, and for each way of reading operands.
#ifndef IMAGEND_OP_TEST_H
#define IMAGEND_OP_TEST_H

#include "ops_internal.h"
#include "ref.h"
#include "test.h"

#include <stdlib.h>

// The device under test, opened once; NULL when there is none (then return test_skip).
struct ops_device *op_test_device(void);
// Closes the device, checks that the validation layers were silent, and returns the exit status.
int op_test_close(void);
// Runs body for every way of computing that the device can take (lists for ops_device_prefer) and
// both dtypes, then op_test_close. The environment's IMAGEND_TEST_WAY names one way, or `own`: what
// the device chooses by itself.
int op_test_run(void (*body)(struct ops_device *dev, enum dtype dtype));
// The way under test.
const char *op_test_way(void);
// Whether this way and dtype run a case. A software device compiles each new pair of a kernel and
// its specialization for seconds: it runs a third of the cases with each way and dtype, such that
// every case runs with both dtypes and with two ways. TEST_CASES=all in the environment, a way that
// it names, and other devices run all.
bool op_test_runs(const struct ops_device *dev, enum dtype dtype, size_t number);
// Whether such a call runs on matrix units, which round more than other kernels.
bool op_test_on_matrix_units(struct ops_device *dev, enum op op, enum dtype dtype,
                             enum dtype weights, const struct problem *p);
// f32 and f16 by name, with the way, for messages.
const char *op_test_variant(const struct ops_device *dev, enum dtype dtype);

// n values in [-1, 1), the same for the same seed, rounded to dtype.
float *op_random(enum dtype dtype, size_t n, uint32_t seed);

// A tensor with these contents (NULL: zeros). view: as channels 4.. of a wider tensor whose other
// channels hold NaN, which no operator may read into its result or overwrite.
struct op_array {
    struct tensor t, whole;
};
struct op_array op_array(struct ops_device *dev, enum dtype dtype, struct ref_shape s,
                         const float *values, bool view);
// Also checks that the channels beside the view, and the padding, are what they were.
void op_array_free(struct op_array *a);

struct ops *op_begin(struct ops_device *dev, enum dtype dtype);
// Ends, runs and destroys; checks that all of it went well.
bool op_finish(struct ops *o);

// |got - want| <= tolerance[i], element by element; also reports the largest ratio.
void op_compare(const char *what, const float *got, const double *want, const double *tolerance,
                size_t n);
// Downloads t, then op_compare.
void op_compare_tensor(const char *what, const struct tensor *t, const double *want,
                       const double *tolerance);
// Rounding of one store: half an ulp of the dtype at |v|, or of its smallest normal number.
double op_store_error(enum dtype dtype, double v);

#define OP_EPS 0x1p-24 // relative error of one f32 operation

#endif
