"""One operation script, played against Apache ZooKeeper and against us; what comes back must be the same.

`script` makes random scripts, `play` plays one against a server and writes down all that comes back,
`transcript` turns the bytes into values that two servers must agree on, `deviations` is the table of what may
differ. `python -m tests.interop.differential --seed N` plays a failing script again and makes it short.
"""
