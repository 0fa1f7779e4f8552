"""Topics: one ``publish`` for WebSockets and event streams, with history and resume.

``topic.py`` is the public interface, ``topic_log.py`` the implementation, and ``shared.py`` the
interface to a broker such as Redis. docs/design.md explains all three.
"""
