"""The command ``connect``: a WebSocket on a terminal or in a pipe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from wsframe import CloseCode, HandshakeError
from wsframe.client import WebSocket, connect

from ..exits import Exit, exit_codes
from ..parsers import command_parser
from .failures import exit_code, explain, is_stream
from .interactive import Interactive
from .options import add_request_options, add_url, positive, seconds, tls_context
from .piped import Piped, given, is_terminal
from .terminal import note

# Close codes after which the exit code is 0: normal closure, going away, no code.
REGULAR = (1000, 1001, 1005)
# The maximum time for the closing handshake after Ctrl-C or Ctrl-D, in seconds.
CLOSE_TIMEOUT = 2.0

STREAM = "the URL is an event stream, which the command events follows"

EXAMPLES = """\
examples:
  %(prog)s ws://localhost:9292/hello
  %(prog)s wss://example.com/feed -H @secrets --subprotocol chat
  echo hello | %(prog)s localhost:9292/echo        each line is a message
  %(prog)s localhost:9292/echo -m hello --count 1  send, print one answer, end
  %(prog)s localhost:9292/feed < /dev/null --wait inf | jq .price
"""


def main(arguments: Sequence[str], prog: str) -> int:
    """Connect, and send and print messages; return the exit code."""
    parser = _parser(prog)
    options = parser.parse_args(arguments)
    context = tls_context(parser, options)
    try:
        ws = connect(
            options.url,
            subprotocols=[name for text in options.subprotocols for name in text.split(",")],
            headers=options.headers,
            origin=options.origin,
            deflate=options.compression,
            ssl=context,
            open_timeout=options.timeout,
            close_timeout=CLOSE_TIMEOUT,
            max_message_size=options.max_size,
        )
    except (HandshakeError, OSError) as error:
        # An SSLError for an invalid certificate is also a ValueError.
        found_stream = isinstance(error, HandshakeError) and is_stream(error)
        explain(prog, options.url, error, STREAM if found_stream else "")
        return exit_code(error)
    except (ValueError, ImportError) as error:
        parser.error(str(error))
    return _talk(ws, options)


def _talk(ws: WebSocket, options: argparse.Namespace) -> int:
    """Exchange messages until the end; return the exit code."""
    if options.verbose:
        for name, value in ws.headers:
            note(f"{name}: {value}")
    on_terminal = is_terminal() and sys.stdout.isatty() and not options.messages
    session: Interactive | Piped
    if on_terminal:
        note(f"Connected to {options.url}{_agreed(ws)}. Ctrl-D closes, /help lists commands.")
        session = Interactive(ws, binary=options.binary, keep_history=options.history)
    else:
        session = Piped(
            ws,
            [given(text, binary=options.binary) for text in options.messages],
            binary=options.binary,
            wait=options.wait,
            count=options.count,
        )
    code = session.run()
    failed = not session.closed_here and ws.close_code not in REGULAR
    if on_terminal or failed:
        end = "Closed" if session.closed_here else "The server closed the connection"
        if ws.close_code == CloseCode.ABNORMAL_CLOSURE:
            end = "The connection was lost"
        note(f"{end}: {ws.close_code} {ws.close_reason}".rstrip(), "bad" if failed else "note")
    return Exit.FAILED if failed and code is Exit.OK else code


def _agreed(ws: WebSocket) -> str:
    """Return the negotiated subprotocol and compression, in parentheses."""
    agreed = [f"subprotocol {ws.subprotocol}"] if ws.subprotocol else []
    agreed += ["compressed"] if ws.deflate else []
    return f" ({', '.join(agreed)})" if agreed else ""


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = command_parser(
        prog,
        "Open a WebSocket. On a terminal, each typed line is a message. In a pipe, "
        "each line of the standard input is a message, and received messages are "
        "written to the standard output.",
        EXAMPLES,
        exit_codes(),
    )
    add_url(parser, "ws")
    messages = parser.add_argument_group("messages")
    messages.add_argument(
        "-m",
        "--message",
        dest="messages",
        action="append",
        default=[],
        metavar="TEXT",
        help="send this message, and do not read the standard input; may be repeated",
    )
    messages.add_argument(
        "-b",
        "--binary",
        action="store_true",
        help="send binary messages; in a pipe, all of the input as one message",
    )
    messages.add_argument(
        "-n",
        "--count",
        type=positive,
        metavar="N",
        help="close after N received messages, once all messages of --message are sent; a greeting "
        "of the server counts; exit with code 1 if fewer arrive",
    )
    messages.add_argument(
        "--wait",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="after the end of the input, close when the server has been silent for this time; "
        "inf to wait for the server (default: %(default)s)",
    )
    messages.add_argument(
        "--max-size",
        type=positive,
        default=16 << 20,
        metavar="BYTES",
        help="maximum size of a received message, in bytes (default: %(default)s)",
    )
    handshake = parser.add_argument_group("handshake")
    handshake.add_argument(
        "-s",
        "--subprotocol",
        dest="subprotocols",
        action="append",
        default=[],
        metavar="NAME",
        help="offer a subprotocol; repeat it, or separate several with commas, preferred first",
    )
    handshake.add_argument(
        "--origin",
        metavar="URL",
        help="value of the Origin header, with which a browser names the site of a page",
    )
    handshake.add_argument(
        "--no-compression",
        dest="compression",
        action="store_false",
        help="do not offer permessage-deflate",
    )
    add_request_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "-v", "--verbose", action="store_true", help="print the headers of the response"
    )
    output.add_argument(
        "--no-history",
        dest="history",
        action="store_false",
        help="do not save the typed lines in the history file",
    )
    return parser
