// Driver behavior beyond the Vulkan specification, in one place. Each workaround costs little where
// it is not needed, so no code checks a driver's name. Used by engine/vulkan and engine/ops.
#ifndef IMAGEND_QUIRKS_H
#define IMAGEND_QUIRKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// lavapipe of Mesa 22.3 silently ends all loops of an invocation after 65,535 trips in total.
enum { QUIRK_MAX_TRIPS = 60000 };

// llvmpipe's key of compiled code overlays bits 8 to 15 of a texel buffer's size with a mip level,
// and compiles every shader once more where they are all zero, as in sizes of 64 KiB times n. A
// view that is this much longer avoids that.
enum { QUIRK_TEXEL_STEP = 256 };
static inline bool quirk_texel_size(size_t bytes)
{
    return !(bytes >> 8 & 255);
}

// llvmpipe compiles code apart for texel buffers over memory of a power-of-two size, too.
static inline bool quirk_slab_size(size_t bytes)
{
    return !(bytes & (bytes - 1));
}

#endif
