"""The command ``publish``: events for a topic that is shared over Redis."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from wsframe import WSFrameError

from ..server.app import App
from ..server.timing import Timing
from ..server.topics.errors import BrokerUnavailable
from .exits import Exit
from .options import REDIS, add_config, add_options
from .parsers import command_parser
from .printing import write
from .sources import SourceError, resolve

LOCAL_REDIS = "redis://localhost"

EXAMPLES = """\
examples:
  %(prog)s news "hello"
  %(prog)s prices '{"price": 3}' --event tick --key ACME
  tail -f log | %(prog)s log                       each line is an event
"""


def main(arguments: Sequence[str], prog: str) -> int:
    """Publish events, and wait until Redis has stored them; return the exit code."""
    parser = command_parser(
        prog,
        "Publish to a topic of an App that shares its topics over Redis (serve --redis, or "
        "App(redis=...)). The topics of other Apps are in the memory of their process, where only "
        "their own code can publish.",
        EXAMPLES,
    )
    parser.add_argument("topic", metavar="TOPIC", help="name of the topic")
    parser.add_argument(
        "messages",
        metavar="MESSAGE",
        nargs="*",
        help="data of an event (default: each line of the standard input is an event)",
    )
    event = parser.add_argument_group("event")
    event.add_argument("--event", metavar="TYPE", help="type of the events")
    event.add_argument(
        "--key",
        metavar="KEY",
        help='key of the events; with the policy "latest", an event replaces older ones with '
        "the same key",
    )
    add_config(parser)
    group = parser.add_argument_group("Redis", f"by default {LOCAL_REDIS}")
    add_options(group, REDIS)
    options = parser.parse_intermixed_args(arguments)
    try:
        configuration = resolve(options, REDIS)
    except SourceError as error:
        parser.error(str(error))
    given, prefix = configuration["redis"], configuration["redis_prefix"]
    redis = LOCAL_REDIS if given is None else given
    lines = (line.rstrip("\r\n") for line in sys.stdin)
    try:
        app = App(redis=redis, redis_prefix=prefix)
        _try_to_connect(redis, prefix)
        count = _publish(app, options.topic, options.messages or lines, options.event, options.key)
    except (WSFrameError, ModuleNotFoundError, ValueError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return Exit.FAILED
    write(
        f"Redis has stored {count} event{'s' * (count != 1)} of the topic {options.topic!r}.\n"
        f"Apps with this Redis and the prefix {prefix!r} send them to "
        "subscribers, which are not counted here.\n"
    )
    return Exit.OK


def _try_to_connect(url: str, prefix: str) -> None:
    """Connect once, so that the command does not wait for a Redis that does not exist.

    Raises:
        BrokerRefused, BrokerUnavailable: as for the topics of an App.
    """
    from ..server.topics.redis.connection import RedisConnection

    connection = RedisConnection(url, prefix, Timing())
    try:
        connection.try_to_connect()
    except BrokerUnavailable as error:
        raise BrokerUnavailable(
            f"Redis at {connection.address} is unavailable (--redis, WSFRAME_REDIS): {error} "
            "Only its own process can publish to an App without Redis."
        ) from None


def _publish(
    app: App, name: str, messages: Iterable[str], event: str | None, key: str | None
) -> int:
    """Publish the messages; return their number when Redis has stored all of them."""
    count = 0
    try:
        topic = app.topic(name)
        for message in messages:
            topic.publish(message, event, key=key)
            count += 1
    finally:
        app.close()
    return count
