"""The commands that are clients."""
