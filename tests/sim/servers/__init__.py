"""The second level: whole servers. Storage, Zab, sessions, watches and the client port as they are in
production, with simulated clients; only sockets, links, disks, threads and clocks are replaced.
"""
