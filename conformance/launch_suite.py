"""Start the reference suite: ``launch_suite.py MESSAGES [argument of wstest ...]``.

The suite runs on Python 2.7, and so does this file. It changes how many messages a case of sections
12 and 13 exchanges (1000 in the suite), that its server listens on the loopback interface alone,
and that it ends, instead of waiting for ever, where it has no case to run.
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
