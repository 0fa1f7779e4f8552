"""Helpers that only the tests of the project need.

The clients, the served apps, the clock and the checks are those of :mod:`wsframe.testing`.
``handlers.Checkpoint`` stops a handler until the test releases it.
"""
