"""``python -m wsframe.server``: the command ``serve`` of :mod:`wsframe.cli`."""

import sys
from functools import partial

from ..cli.program import run_with_streams
from ..cli.serve import main

PROG = "python -m wsframe.server"

if __name__ == "__main__":
    sys.exit(run_with_streams(partial(main, sys.argv[1:], PROG), PROG))
