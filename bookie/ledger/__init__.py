"""The ledger protocol as pure values: formats, distribution, metadata, writer, recovery and reader.

Nothing here waits, reads a clock or opens a socket. `bookie.client` carries out what these cores decide, and
the simulation drives the same objects over a virtual network. The rules R-xx cited in the modules are those
of the ledger specification.
"""
