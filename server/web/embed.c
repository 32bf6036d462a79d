// Build tool: writes a file as a C array, so that the page travels inside the program.
// Usage: embed NAME INPUT OUTPUT.
#include <stdio.h>

int main(int argc, char **argv)
{
    FILE *in = argc == 4 ? fopen(argv[2], "rb") : NULL;
    FILE *out = in ? fopen(argv[3], "w") : NULL;
    if (!out) {
        fprintf(stderr, "embed: cannot open the files\n");
        return 1;
    }
    size_t n = 0;
    fprintf(out, "#include \"page_data.h\"\nconst unsigned char page_%s[] = {", argv[1]);
    for (int c; (c = fgetc(in)) != EOF; n++)
        fprintf(out, "%s%d,", n % 24 ? "" : "\n", c);
    fprintf(out, "\n};\nconst size_t page_%s_size = %zu;\n", argv[1], n);
    fclose(in);
    return fclose(out) ? 1 : 0;
}
