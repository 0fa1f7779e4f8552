"""What HTTP says before a WebSocket or an event stream begins, and of the latter's events."""
