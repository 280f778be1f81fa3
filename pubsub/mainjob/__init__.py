"""The main job, `make run`: a local cluster under real input while its servers are killed.

corpus    the input: Python's own standard library
work      what users do with it: publish, subscribe, write ledgers, elect leaders
faults    which server is killed when, and how long its clients noticed
report    what came out, as a table
"""
