// The weights of conv3_winograd. Not for other layers. Thread: the engine's worker.
#ifndef IMAGEND_WINOGRAD_H
#define IMAGEND_WINOGRAD_H

#include "ops_internal.h"

enum { WINOGRAD_POSITIONS = 36 };

// Writes the transformed weights of a 3x3 convolution, f32, [out/sg][36][in/4][sg][4], of any type
// that p->from may have; zeros in rows that pad them. Errors: NO_MEMORY, those of vk_upload.
enum err winograd_pack(const struct op_weight_params *p, uint32_t sg, const struct tensor *packed);

#endif
