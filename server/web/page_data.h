// Files that the build embeds: the web page, and the schemas of responses.
#ifndef IMAGEND_PAGE_DATA_H
#define IMAGEND_PAGE_DATA_H

#include <stddef.h>

struct page_file {
    const char *name, *type; // type: of HTTP
    const unsigned char *data;
    size_t size;
};

// Each ends with a row whose name is NULL.
extern const struct page_file page_files[];
extern const struct page_file response_files[]; // JSON objects: schemas by name

#endif
