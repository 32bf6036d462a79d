// Shared by the files of the test of samplers.
#ifndef IMAGEND_SAMPLER_TEST_H
#define IMAGEND_SAMPLER_TEST_H

#include "samplers.h"

// Owner: the caller; NULL, after a failed check that names `what`, when it is refused.
struct sampler *make_sampler(const struct sampler_params *p, const char *what);

// test_sampler_configs.c
void check_configs(void);

#endif
