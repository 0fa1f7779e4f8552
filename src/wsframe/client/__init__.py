"""A small blocking client: WebSockets, for any number of threads, and event streams.

It starts no threads: the threads that call its methods do the work. An example::

    with connect("ws://localhost:9292/chat") as ws:
        ws.send("hello")
        for message in ws:
            print(message)

    for event in events("http://localhost:9292/time"):
        print(event.id, event.data)
"""

from .eventsource import EventSource, Reconnect, events
from .opening import connect
from .websocket import WebSocket

__all__ = ["EventSource", "Reconnect", "WebSocket", "connect", "events"]
