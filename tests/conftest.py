"""What holds for every test."""

import os
import signal

from hypothesis import HealthCheck, settings

# Nothing is judged by how long it takes: how busy the machine is says nothing about the code.
settings.register_profile("zoolog", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("zoolog")

# Tests start hundreds of servers and commands: if each compiled all its modules anew, that would be half of
# what a start costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Who runs the tests in the background of a shell has them start with SIGINT ignored, and every process they
# start inherits that; the tests that press Ctrl-C need it to be heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
