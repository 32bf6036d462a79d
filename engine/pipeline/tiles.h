// Overlapping tiles along one axis of an image. Shared by enlarge.c and decode.c.
#ifndef IMAGEND_TILES_H
#define IMAGEND_TILES_H

// The number of tiles of `edge` pixels that cover n. They overlap by at least a quarter of their
// edge.
int tiles_along(int n, int edge);
// The start of the i-th tile: evenly spaced, or centered if the image is smaller than a tile.
int tiles_place(int n, int edge, int count, int i);

#endif
