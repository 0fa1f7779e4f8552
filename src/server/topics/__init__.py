"""Topics: one ``publish`` for WebSockets and event streams, with history and resume."""
