// In place of the PostgreSQL store in a program that was built without libpq. Loop thread.
#include "store.h"

enum err store_postgres_open(const struct store_postgres_params *p, struct store **out,
                             struct fault *why)
{
    *out = NULL;
    return fault_set(why, ERR_UNSUPPORTED, "store",
                     "this program was built without PostgreSQL; build it with libpq, or set store "
                     "to sqlite or memory");
}
