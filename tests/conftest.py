"""What holds for every test."""

import signal

# Who runs the tests in the background of a shell has them start with SIGINT ignored, and every process they
# start inherits that; the tests that press Ctrl-C need it to be heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
