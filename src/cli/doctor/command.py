"""The examination of URLs, and its report."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from ..client.options import add_request_options, add_url, seconds, tls_context
from ..client.terminal import note, printable, styled, uses_color
from ..exits import Exit
from ..parsers import command_parser
from ..printing import write
from .checks import check_connection, check_websocket
from .examination import Subject
from .findings import Finding, Grade, remedy_lines
from .stream import check_stream

STYLES = {Grade.OK: "good", Grade.NOTE: "warn", Grade.PROBLEM: "bad"}

EXAMPLES = """\
examples:
  %(prog)s wss://example.com/chat                        a WebSocket
  %(prog)s https://example.com/news                      an event stream
  %(prog)s wss://example.com/chat -H @secrets            headers in a file

exit codes:
  0     no problem was found
  1     problems were found
  2     invalid arguments
"""


def main(arguments: Sequence[str], prog: str) -> int:
    """Examine URLs, and print the findings; return the exit code."""
    parser = command_parser(
        prog,
        "Examine WebSockets and event streams as their clients see them, from outside of all "
        "proxies: certificate, upgrade, Host, Origin, buffering, compression, limits of silence. "
        "For each problem, name the change for nginx, Caddy or Cloudflare.",
        EXAMPLES,
    )
    add_url(parser, "ws", "http", nargs="+", dest="urls")
    parser.add_argument(
        "--silence",
        type=seconds,
        default=25.0,
        metavar="SECONDS",
        help="time in which each connection is observed (default: %(default)s, which contains a "
        "ping and a comment of the server)",
    )
    add_request_options(parser)
    options = parser.parse_intermixed_args(arguments)
    context = tls_context(parser, options)
    problems = 0
    for url in options.urls:
        try:
            subject = Subject(url, options.headers, context, options.timeout, options.silence)
        except (ValueError, ImportError) as error:
            parser.error(str(error))
        write(f"{url}\n")
        for finding in examine(subject):
            problems += finding.grade is Grade.PROBLEM
            _print(finding, subject.proxy)
    plural = "" if problems == 1 else "s"
    note(f"{problems} problem{plural}" if problems else "No problems.")
    return Exit.FAILED if problems else Exit.OK


def examine(subject: Subject) -> Iterator[Finding]:
    """Run the checks of a URL in order; stop after a failure that makes later checks useless."""
    connection = check_connection(subject)
    yield connection
    if connection.grade is Grade.PROBLEM and connection.remedy != "expires":
        return
    yield from check_websocket(subject) if subject.is_websocket else check_stream(subject)


def _print(finding: Finding, proxy: str) -> None:
    grade = styled(f"{finding.grade:<8}", STYLES[finding.grade], color=uses_color(sys.stdout))
    write(f"  {grade} {printable(finding.text)}\n")
    if finding.remedy:
        for line in remedy_lines(finding.remedy, proxy):
            write(f"           {line}\n")
