"""The parsers of the commands: a description, groups of options, and examples at the end."""

from __future__ import annotations

import argparse
import textwrap

from .program import version


def command_parser(
    prog: str,
    description: str,
    *sections: str,
    kind: type[argparse.ArgumentParser] = argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """Return a parser with the options --help and --version only.

    Args:
        prog: the name of the program and the command.
        description: a paragraph for the beginning of the help.
        *sections: texts for the end of the help, printed as they are; ``%(prog)s`` is replaced.
        kind: the class of the parser.
    """
    parser = kind(
        prog=prog,
        description=textwrap.fill(description, 80),
        epilog="\n".join(sections),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-V",
        "--version",
        action="version",
        version=version(),
        help="print the version of wsframe, its kernels and Python, and exit",
    )
    return parser
