"""WSGI servers under the WebSockets and event streams of ``wsframe.wsgi``: ``make servers``.

Each server is started as a program, with one application. The checks compare every received byte.
Then a mixed load runs for a minute, and a table shows the results. The tests run the checks in a
short form.
"""
