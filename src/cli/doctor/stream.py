"""The checks of an event stream."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from wsframe import EventStreamDecoder, HandshakeError, ProtocolError
from wsframe.client import http
from wsframe.client.dial import SocketSlot
from wsframe.client.identity import with_user_agent

from ..client.failures import EVENT_STREAM, describe
from .checks import explain_misdirected, explain_status, quote
from .examination import FOREIGN, Subject
from .findings import Finding, Grade


def check_stream(subject: Subject) -> Iterator[Finding]:
    """Open event streams, and observe one of them."""
    slot = SocketSlot()
    try:
        try:
            response = _open(subject, subject.origin, slot)
        except TimeoutError:
            # Proxies do not buffer a refusal, whose headers identify the proxy.
            _status_for(subject, FOREIGN)
            text = f"No response within {subject.timeout:g} s, not even its head."
            yield Finding(Grade.PROBLEM, text, "buffering")
            return
        except (HandshakeError, OSError) as error:
            yield Finding(Grade.PROBLEM, f"The request failed: {describe(error)[0]}")
            return
        if response.status != 200 or response.content_type != EVENT_STREAM:
            yield _explain(subject, response)
            return
        yield Finding(Grade.OK, "The path is an event stream.")
        yield _check_foreign_page(subject)
        yield from _observe(subject, response)
    finally:
        slot.close()


def _open(subject: Subject, origin: str | None, slot: SocketSlot) -> http.Response:
    """Request the event stream with the headers of a browser and a given Origin."""
    headers = [
        ("Host", subject.location.authority),
        ("Accept", EVENT_STREAM),
        ("Accept-Encoding", "gzip"),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
        *([] if origin is None else [("Origin", origin)]),
        *subject.location.with_authorization(subject.headers),
    ]
    response = http.send(
        subject.location,
        "GET",
        with_user_agent(headers),
        b"",
        deadline=monotonic() + subject.timeout,
        ssl=subject.context,
        timeout=subject.silence,
        slot=slot,
    )
    subject.recognize(response.headers)
    return response


def _status_for(subject: Subject, origin: str | None) -> int:
    """Return the status of a request with a given Origin; 0 without a response."""
    slot = SocketSlot()
    try:
        return _open(subject, origin, slot).status
    except (HandshakeError, OSError):
        return 0
    finally:
        slot.close()


def _explain(subject: Subject, response: http.Response) -> Finding:
    """Return the findings for a response that is not an event stream."""
    error = response.error()
    if error.status == 426:
        url = f"ws{subject.url.removeprefix('http')}"
        return Finding(
            Grade.PROBLEM, f"The path is a WebSocket and not an event stream: examine {url}"
        )
    if error.status == 403 and _status_for(subject, subject.origin_without_port) == 200:
        return Finding(Grade.PROBLEM, "The server receives the Host without its port.", "port")
    if error.status == 421:
        return explain_misdirected(error)
    if error.status == 403 and _status_for(subject, None) == 200:
        text = f"The server refuses pages of {subject.origin}, so it receives another Host"
        return Finding(Grade.PROBLEM, f"{text}: {quote(error)}", "host")
    return explain_status(error) or Finding(
        Grade.PROBLEM, f"The server refused the request: {quote(error)}"
    )


def _check_foreign_page(subject: Subject) -> Finding:
    slot = SocketSlot()
    try:
        allowed = _open(subject, FOREIGN, slot).values("access-control-allow-origin")
    except (HandshakeError, OSError) as error:
        return Finding(Grade.NOTE, f"A second request failed: {describe(error)[0]}.")
    finally:
        slot.close()
    if "*" in allowed or FOREIGN in allowed:
        return Finding(Grade.NOTE, "Pages of all other sites may read the events (CORS).")
    return Finding(Grade.OK, "Pages of other sites cannot read the events.")


def _observe(subject: Subject, response: http.Response) -> Iterator[Finding]:
    """Wait for the first bytes, then keep the stream open for a while."""
    encoded = ", ".join(response.values("content-encoding"))
    begin = monotonic()
    try:
        response.decode()
        first = response.read()
    except TimeoutError:
        text = f"Nothing arrived for {subject.silence:g} s, neither an event nor a comment."
        yield Finding(Grade.PROBLEM, text, "compression" if encoded else "buffering")
        return
    except (HandshakeError, OSError) as error:
        yield Finding(Grade.PROBLEM, f"The stream was cut: {describe(error)[0]}.", "silence")
        return
    milliseconds = 1000 * (monotonic() - begin)
    yield Finding(Grade.OK, f"The first bytes arrive after {milliseconds:.0f} ms.")
    if encoded:
        text = f"The stream is compressed ({encoded}), by the server or by a proxy."
        yield Finding(Grade.NOTE, text, "compression")
    yield _keep_open(subject, response, first)


def _keep_open(subject: Subject, response: http.Response, data: bytes) -> Finding:
    """Read until the stream ends, is silent for long enough, or has been read for long enough."""
    begin = monotonic()
    decoder, events = EventStreamDecoder(), 0
    try:
        while data and monotonic() - begin < subject.silence:
            events += len(decoder.receive(data))
            data = response.read()
    except TimeoutError:
        pass
    except (OSError, ProtocolError) as error:
        text = f"The stream was cut after {monotonic() - begin:.1f} s: {describe(error)[0]}."
        return Finding(Grade.PROBLEM, text, "silence")
    if data:
        return Finding(Grade.OK, f"The stream stays open for {subject.silence:g} s.")
    if events:
        return Finding(Grade.NOTE, f"The server ended the stream after {events} events.")
    text = f"The stream was cut after {monotonic() - begin:.1f} s, without an event."
    return Finding(Grade.PROBLEM, text, "silence")
