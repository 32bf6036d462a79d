// Build tool: writes files as a table of C arrays, so that they travel inside the program.
// Usage: embed OUTPUT TABLE INPUT...
#include <stdio.h>
#include <string.h>

static const char *const types[][2] = {
    {".html", "text/html; charset=utf-8"},
    {".css", "text/css; charset=utf-8"},
    {".js", "text/javascript; charset=utf-8"},
    {".json", "application/json"},
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static const char *type_of(const char *path)
{
    const char *dot = strrchr(base_name(path), '.');

    for (size_t i = 0; dot && i < sizeof types / sizeof *types; i++)
        if (!strcmp(dot, types[i][0]))
            return types[i][1];
    return NULL;
}

// False if the file cannot be read or is of an unknown type.
static int add_file(FILE *out, const char *path, int index)
{
    FILE *in = type_of(path) ? fopen(path, "rb") : NULL;
    size_t n = 0;

    if (!in) {
        fprintf(stderr, "embed: cannot embed %s\n", path);
        return 0;
    }
    fprintf(out, "static const unsigned char file%d[] = {", index);
    for (int c; (c = fgetc(in)) != EOF; n++)
        fprintf(out, "%s%d,", n % 24 ? "" : "\n", c);
    fprintf(out, "\n};\n");
    fclose(in);
    return n > 0;
}

int main(int argc, char **argv)
{
    FILE *out = argc > 3 ? fopen(argv[1], "w") : NULL;

    if (!out) {
        fprintf(stderr, "embed: cannot write the output\n");
        return 1;
    }
    fprintf(out, "#include \"page_data.h\"\n\n");
    for (int i = 3; i < argc; i++)
        if (!add_file(out, argv[i], i))
            return 1;
    fprintf(out, "const struct page_file %s[] = {\n", argv[2]);
    for (int i = 3; i < argc; i++)
        fprintf(out, "    {\"%s\", \"%s\", file%d, sizeof file%d},\n", base_name(argv[i]),
                type_of(argv[i]), i, i);
    fprintf(out, "    {NULL, NULL, NULL, 0},\n};\n");
    return fclose(out) ? 1 : 0;
}
