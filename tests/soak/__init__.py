"""A long soak of real servers under random faults: `python -m tests.soak --minutes 20`."""
