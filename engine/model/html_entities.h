// Named characters of HTML. Used by clip_text.c. Thread: any.
#ifndef IMAGEND_HTML_ENTITIES_H
#define IMAGEND_HTML_ENTITIES_H

#include <stdint.h>

// The character with this name, without '&' and ';'; 0: unknown.
uint32_t html_entity(const char *name);

#endif
