// The version, the default model and the user's folders. Nothing may be installed next to this
// test.
#include "program.h"
#include "test.h"

#include <ctype.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void check_version(const char *project)
{
    CHECK_STR(program_version, project);
    CHECK(isdigit((unsigned char)program_version[0]));
}

static void check_user_folder(void)
{
    static const struct {
        const char *base, *home, *want; // NULL: unset, or no folder
    } rows[] = {
        {"/state", "/home/a", "/state/imagend"},
        {NULL, "/home/a", "/home/a/.local/state/imagend"},
        {"", "/home/a", "/home/a/.local/state/imagend"},
        {"relative", "/home/a", "/home/a/.local/state/imagend"},
        {NULL, NULL, NULL},
        {"relative", "relative", NULL},
        {NULL, "", NULL},
    };
    char out[100];

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].base)
            setenv("XDG_STATE_HOME", rows[i].base, 1);
        else
            unsetenv("XDG_STATE_HOME");
        if (rows[i].home)
            setenv("HOME", rows[i].home, 1);
        else
            unsetenv("HOME");
        const bool found = program_user_folder("XDG_STATE_HOME", ".local/state", out, sizeof out);
        CHECK_MSG(found == (rows[i].want != NULL), "row %zu", i);
        if (found && rows[i].want)
            CHECK_STR(out, rows[i].want);
    }
}

// In a folder without a model, and in one that has models/default.
static void check_model(const char *installed)
{
    char folder[] = "/tmp/imagend-program-XXXXXX";

    setenv("IMAGEND_MODEL", "/some/model", 1);
    CHECK_STR(program_default_model(), "/some/model");
    setenv("IMAGEND_MODEL", "", 1);
    CHECK(mkdtemp(folder) && !chdir(folder));
    CHECK_STR(program_default_model(), installed);
    CHECK(!mkdir("models", 0700) && !mkdir("models/default", 0700));
    CHECK_STR(program_default_model(), installed); // an empty folder is no model
    FILE *f = fopen("models/default/cascade.json", "w");
    CHECK(f && !fclose(f));
    if (access(installed, R_OK))
        CHECK_STR(program_default_model(), "models/default");
    CHECK(!unlink("models/default/cascade.json") && !rmdir("models/default") && !rmdir("models"));
    CHECK(!chdir("/") && !rmdir(folder));
}

// argv: the project's version, and the folder where the default model is installed.
int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    check_version(argv[1]);
    check_user_folder();
    check_model(argv[2]);
    return test_end();
}
