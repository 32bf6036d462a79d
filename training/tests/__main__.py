"""All tests, for `meson test`: exit status 77 (skipped) where there is no torch to run them."""

import importlib.util
import sys
import unittest

if __name__ == "__main__":
    missing = [m for m in ("torch", "sentencepiece", "numpy", "PIL") if not importlib.util.find_spec(m)]
    if missing:
        print("no Python module %s here" % ", ".join(missing))
        sys.exit(77)
    unittest.main(module=None, argv=["tests", "discover", "-s", "tests", "-t", "."])
