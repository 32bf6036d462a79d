// The web page's files, embedded by the build.
#ifndef IMAGEND_PAGE_DATA_H
#define IMAGEND_PAGE_DATA_H

#include <stddef.h>

extern const unsigned char page_html[], page_css[], page_js[];
extern const size_t page_html_size, page_css_size, page_js_size;

#endif
