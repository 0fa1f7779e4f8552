"""The I/O loop that is handed off when a handler blocks it, its tasks and its threads."""
