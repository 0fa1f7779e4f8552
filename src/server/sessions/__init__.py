"""Sessions: WebSockets and event streams, with their handlers."""
