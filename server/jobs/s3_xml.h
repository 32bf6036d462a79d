// Looks for elements in the XML of an S3-compatible store. Thread: any.
#ifndef IMAGEND_S3_XML_H
#define IMAGEND_S3_XML_H

#include <stdbool.h>
#include <stddef.h>

enum { S3_CODE = 48 };

// The code of an error such as NoSuchKey; "" if there is none.
void s3_xml_code(const char *text, size_t n, char code[S3_CODE]);
// The next key of a list: copies it to key and moves *at behind it. A key that is longer, or that
// contains an escaped character, is skipped: it is not the service's. False: there is none.
bool s3_xml_key(const char *text, size_t n, size_t *at, char *key, size_t size);

#endif
