"""Start the reference suite: ``launch_suite.py MESSAGES [argument of wstest ...]``.

The suite and this file run on Python 2.7. This file changes three things: the number of messages in
the cases of sections 12 and 13 (1000 in the suite); the address of its server, which becomes the
loopback address; and a run without cases, which ends instead of waiting forever.
"""

import functools
import sys

from autobahntestsuite.wstest import fuzzing, run

messages = int(sys.argv.pop(1))
for case in fuzzing.Cases:
    if case.__name__.startswith(("Case12_", "Case13_")):
        case.COUNT = messages
fuzzing.listenWS = functools.partial(fuzzing.listenWS, interface="127.0.0.1")
select = fuzzing.CaseSet.parseSpecCases
fuzzing.CaseSet.parseSpecCases = lambda cases, spec: select(cases, spec) or sys.exit("no such case")
run()
