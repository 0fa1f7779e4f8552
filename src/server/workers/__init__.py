"""Worker processes, which share one port, and the supervisor that starts and replaces them."""
