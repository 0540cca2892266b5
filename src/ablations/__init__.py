import sys

# `python -m` looks for modules in the working directory first, where a user may have a `random.py`.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    del sys.path[0]
