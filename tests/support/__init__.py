"""The testing kit: an app served in the test process, its clients, and a clock.

``serving.serve`` serves an app. ``clients`` has plain, WebSocket and event-stream clients, whose
``expect`` waits for messages. ``slow_reader`` and ``vanishing_peer`` imitate bad networks.
``clock.ManualClock`` is a clock that only the test advances. ``handlers.Checkpoint`` stops a
handler until the test releases it. ``leaks.leak_check`` fails if a thread or a file is left.
"""
