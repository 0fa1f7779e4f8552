"""``python -m wsframe.server``: the command ``serve`` of :mod:`wsframe.cli`."""

import sys

from ..cli.serve import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], "python -m wsframe.server"))
