"""Import this before torch: one thread per process. Small maps gain nothing from more, and several
single-threaded processes do (see train_base.py)."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
