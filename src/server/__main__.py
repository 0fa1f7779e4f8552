"""``python -m wsframe.server``: the command line, :mod:`wsframe.cli`."""

from ..cli import main

if __name__ == "__main__":
    main()
