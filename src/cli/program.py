"""The program ``wsframe``: its commands, each imported only when it is used."""

from __future__ import annotations

import difflib
import importlib
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from wsframe import __version__
from wsframe.kernels import INSTRUCTION_SET

from .exits import Exit
from .printing import OutputError, replace_closed_streams, write


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        module: the module in this package; its ``main`` gets the arguments and the program's name,
            and returns the exit code.
        summary: one line for the help.
        extra: the extra of the package with the libraries that the command requires.
    """

    module: str
    summary: str
    extra: str


GROUPS = {
    "servers": {
        "serve": Command("serve", "serve an application, or the demo", "server"),
        "publish": Command(
            "publish", "publish to a topic that is shared over Redis", "server,redis"
        ),
    },
    "clients": {
        "connect": Command(
            "client.connect", "open a WebSocket, to type or pipe messages", "client"
        ),
        "events": Command("client.events", "follow an event stream", "client"),
    },
    "diagnosis": {
        "doctor": Command(
            "doctor.command", "find out what a proxy does to a WebSocket or a stream", "client"
        ),
        "bench": Command("bench.command", "measure the codec on this machine", "client"),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}

EXAMPLES = """\
examples:
  wsframe serve                                 the demo, on http://localhost:9292
  wsframe serve shop:app --port 8000            the App "app" of the module "shop"
  wsframe connect ws://localhost:9292/hello     a WebSocket
  wsframe events http://localhost:9292/time     an event stream
  wsframe doctor wss://example.com/chat         is the proxy in front of it correct?

"wsframe COMMAND --help" describes a command and its options."""


def main(arguments: Sequence[str] | None = None, prog: str = "wsframe") -> int:
    """Run the command that the arguments name; return its exit code.

    Args:
        arguments: the arguments of the program; None for those of the process.
        prog: the name of the program in messages.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    return run_with_streams(partial(_run, name, rest, prog), f"{prog} {name}")


def run_with_streams(run: Callable[[], int], name: str) -> int:
    """Run a command whose standard streams may be closed or fail; return its exit code.

    Args:
        run: a function that runs the command and returns its exit code.
        name: the name of the program and the command in messages.
    """
    replace_closed_streams()
    try:
        return run()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except OutputError as error:
        if str(error):
            print(f"{name}: cannot write the output: {error}", file=sys.stderr)
        return Exit.FAILED


def _run(name: str, rest: Sequence[str], prog: str) -> int:
    """Run a command with its arguments; return its exit code."""
    if name in ("-h", "--help", "help"):
        if rest and rest[0] in COMMANDS:
            return _run(rest[0], ["--help"], prog)
        write(f"{usage(prog)}\n")
        return Exit.OK
    if name in ("-V", "--version"):
        write(f"{version()}\n")
        return Exit.OK
    command = COMMANDS.get(name)
    if command is None:
        print(_unknown(name, prog), file=sys.stderr)
        return Exit.USAGE
    try:
        module = importlib.import_module(f".{command.module}", __package__)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library == "wsframe":
            raise
        print(
            f"{prog} {name} requires {library}: pip install 'wsframe[{command.extra}]'",
            file=sys.stderr,
        )
        return Exit.FAILED
    code: int = module.main(rest, f"{prog} {name}")
    return code


def version() -> str:
    """Return the version of the package, with the kernels in use and the Python."""
    return (
        f"wsframe {__version__}, kernels: {INSTRUCTION_SET}, "
        f"{platform.python_implementation()} {platform.python_version()} on {platform.system()}"
    )


def usage(prog: str) -> str:
    """Return the help of the program."""
    width = max(map(len, COMMANDS))
    lines = [
        f"usage: {prog} COMMAND [ARGUMENT ...]",
        f"       {prog} --help | --version",
        "",
        "WebSockets and server-sent events for Python programs made of threads.",
    ]
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:{width}}  {command.summary}" for name, command in commands.items()]
    return "\n".join([*lines, "", EXAMPLES])


def _unknown(name: str, prog: str) -> str:
    if not name:
        return usage(prog)
    similar = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean {similar[0]!r}?" if similar else ""
    return f"{prog}: no command {name!r}{hint} (commands: {', '.join(COMMANDS)})"
