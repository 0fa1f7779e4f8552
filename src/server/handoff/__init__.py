"""The I/O loop, which is handed off when a handler blocks it, with its tasks and threads."""
