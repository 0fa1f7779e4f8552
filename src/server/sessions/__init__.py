"""The sessions of connections: WebSockets and event streams, with their handlers."""
