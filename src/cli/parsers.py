"""The parsers of the commands: a description, groups of options, and examples at the end."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import Any

from .printing import write
from .program import version


class Parser(argparse.ArgumentParser):
    """A parser whose help and version are output of the program, and may fail like it."""

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print a message; argparse would ignore that standard output cannot be written.

        Raises:
            OutputError: standard output cannot be written.
        """
        if file is sys.stdout:
            write(message)
        else:
            super()._print_message(message, file)

    def _get_nargs_pattern(self, action: argparse.Action) -> str:
        """Return the pattern of an action's arguments; in CPython before 3.13 it may match "--".

        The first pass of ``parse_intermixed_args`` suppresses the positional arguments. A "--" that
        they match would be missing in the second pass.
        """
        return "()" if action.nargs == argparse.SUPPRESS else super()._get_nargs_pattern(action)


def command_parser(
    prog: str,
    description: str,
    *sections: str,
    kind: type[Parser] = Parser,
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
