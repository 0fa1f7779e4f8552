"""The command ``events``: an event stream on the standard output."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from wsframe import HandshakeError, ProtocolError, ServerSentEvent
from wsframe.client import EventSource, Reconnect, events

from ..exits import Exit, exit_codes
from ..parsers import command_parser
from ..printing import write
from .failures import describe, exit_code, explain
from .options import add_request_options, add_url, positive, tls_context
from .terminal import note, printable, styled, uses_color

EXAMPLES = """\
examples:
  %(prog)s http://localhost:9292/time
  %(prog)s localhost:9292/news --last-event-id 41 --count 3
  %(prog)s localhost:9292/news --output json | jq .data
  %(prog)s https://api.example/answers --data '{"prompt": "hello"}' -H @secrets
"""


def main(arguments: Sequence[str], prog: str) -> int:
    """Follow an event stream, and print its events; return the exit code."""
    parser = _parser(prog)
    options = parser.parse_args(arguments)
    context = tls_context(parser, options)
    body = _body(parser, options.data)
    method = options.method or ("GET" if options.data is None else "POST")
    headers = options.headers
    if body and not any(name.lower() == "content-type" for name, _ in headers):
        headers = [*headers, ("Content-Type", "application/json")]
    try:
        source = events(
            options.url,
            headers=headers,
            method=method,
            body=body,
            last_event_id=options.last_event_id,
            reconnect=options.reconnect,
            on_open=partial(note, f"Following {options.url} (Ctrl-C ends)"),
            on_reconnect=_report,
            ssl=context,
            open_timeout=options.timeout,
            read_timeout=options.read_timeout,
        )
    except (HandshakeError, OSError) as error:
        # An SSLError for an invalid certificate is also a ValueError.
        explain(prog, options.url, error)
        return exit_code(error)
    except (ValueError, ImportError) as error:
        parser.error(str(error))
    with source:
        try:
            return _print_events(source, options.output, options.count)
        except HandshakeError as error:
            explain(prog, options.url, error)
            return Exit.REFUSED
        except (ProtocolError, OSError) as error:
            explain(prog, options.url, error)
            return Exit.FAILED


def _print_events(source: EventSource, output: str, count: int | None) -> Exit:
    """Print the events until the end of the stream, or of the output."""
    received = 0
    for event in source:
        write(FORMATS[output](event).encode())
        received += 1
        if received == count:
            return Exit.OK
    if count is not None:
        note(f"the stream has ended after {received} of {count} events (--count)", "bad")
        return Exit.FAILED
    note("The stream has ended.")
    return Exit.OK


def _report(reconnect: Reconnect) -> None:
    """Print the reason and the delay of a reconnect."""
    reason, *body = (
        ["the server ended it"] if reconnect.error is None else describe(reconnect.error)
    )
    note(f"The stream is closed: {reason}. Next attempt in {reconnect.delay:.1f} s.", "warn")
    for line in body:
        note(line)


def _pretty(event: ServerSentEvent) -> str:
    """Return an event as text: the id, the type unless it is "message", and the data."""
    head = " ".join(printable(text) for text in (event.id, event.event) if text)
    first = [styled(f"[{head}]", "in", color=uses_color(sys.stdout))] if head else []
    data = "\n  ".join(printable(line) for line in event.data.split("\n"))
    return " ".join([*first, data]) + "\n"


def _data(event: ServerSentEvent) -> str:
    return f"{event.data}\n"


def _json(event: ServerSentEvent) -> str:
    fields = {"id": event.id, "event": event.event or "message", "data": event.data}
    return json.dumps(fields) + "\n"


def _wire(event: ServerSentEvent) -> str:
    return event.encode().decode()


FORMATS: dict[str, Callable[[ServerSentEvent], str]] = {
    "pretty": _pretty,
    "data": _data,
    "json": _json,
    "wire": _wire,
}


def _body(parser: argparse.ArgumentParser, data: str | None) -> bytes:
    """Return the body of the option --data; exit with a message if its file cannot be read."""
    if data is None or not data.startswith("@"):
        return os.fsencode(data or "")
    if data == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        parser.error(f"cannot read {data[1:]!r}: {error.strerror}")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = command_parser(
        prog,
        "Follow an event stream. When it ends or is lost, reconnect and continue after "
        "the last event; failures and delays are reported on the standard error.",
        EXAMPLES,
        exit_codes(),
    )
    add_url(parser, "http")
    stream = parser.add_argument_group("stream")
    stream.add_argument(
        "--last-event-id", default="", metavar="ID", help="continue after the event with this id"
    )
    stream.add_argument(
        "-n",
        "--count",
        type=positive,
        metavar="N",
        help="end after N events; exit with code 1 if fewer arrive",
    )
    stream.add_argument(
        "--reconnect",
        action=argparse.BooleanOptionalAction,
        help="repeat the request when the stream ends (default: only GET requests)",
    )
    stream.add_argument(
        "--read-timeout",
        type=positive,
        metavar="SECONDS",
        help="reconnect after this silence; servers usually send comments (default: no limit)",
    )
    add_request_options(parser)
    body = parser.add_argument_group("request with a body")
    body.add_argument(
        "-d",
        "--data",
        metavar="TEXT",
        help="send a POST request with this body, in JSON unless a header has another "
        "Content-Type; @FILE reads a file, @- the standard input",
    )
    body.add_argument("-X", "--method", help="the method (default: POST with --data, else GET)")
    output = parser.add_argument_group("output")
    output.add_argument(
        "-o",
        "--output",
        choices=FORMATS,
        default="pretty" if sys.stdout.isatty() else "data",
        help="the id, type and data (pretty, the default on a terminal); only the data (the "
        "default in a pipe); JSON, one event a line; or the format of the wire",
    )
    return parser
