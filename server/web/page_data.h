// The web page's files, embedded by the build.
#ifndef IMAGEND_PAGE_DATA_H
#define IMAGEND_PAGE_DATA_H

#include <stddef.h>

struct page_file {
    const char *name, *type; // type: of HTTP
    const unsigned char *data;
    size_t size;
};

// Ends with a row whose name is NULL.
extern const struct page_file page_files[];

#endif
