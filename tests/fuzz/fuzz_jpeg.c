// Any bytes as a JPEG file.
#include "fuzz_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_image(data, size, CODEC_JPEG);
    return 0;
}
