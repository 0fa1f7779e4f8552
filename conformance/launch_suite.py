"""Start the reference suite: ``launch_suite.py MESSAGES [argument of wstest ...]``.

The suite runs on Python 2.7, and so does this file. It changes two things: how many messages a case
of sections 12 and 13 exchanges (1000 in the suite), and that its server listens on the loopback
interface alone.
"""

import functools
import sys

from autobahntestsuite.wstest import fuzzing, run

messages = int(sys.argv.pop(1))
for case in fuzzing.Cases:
    if case.__name__.startswith(("Case12_", "Case13_")):
        case.COUNT = messages
fuzzing.listenWS = functools.partial(fuzzing.listenWS, interface="127.0.0.1")
run()
