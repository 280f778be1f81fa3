"""What holds for every test."""

import signal

from hypothesis import HealthCheck, settings

# Nothing is judged by how long it takes: how busy the machine is says nothing about the code.
settings.register_profile("zoolog", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("zoolog")

# Who runs the tests in the background of a shell has them start with SIGINT ignored, and every process they
# start inherits that; the tests that press Ctrl-C need it to be heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
