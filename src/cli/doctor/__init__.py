"""The command ``doctor``: what a proxy does to WebSockets and event streams."""
