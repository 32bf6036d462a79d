// Overlapping tiles along one axis, see tiles.h.
#include "tiles.h"

#include <math.h>
#include <stdint.h>

int tiles_along(int n, int edge)
{
    const int step = edge - edge / 4;

    return n <= edge ? 1 : (n - edge + step - 1) / step + 1;
}

int tiles_place(int n, int edge, int count, int i)
{
    if (count == 1)
        return (int)floor((n - edge) / 2.0);
    return (int)((int64_t)i * (n - edge) / (count - 1));
}
