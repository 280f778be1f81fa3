"""Load generators: what `zoolog bench` and `bench/` measure with, each in a process of its own.

    python -m pubsub.command.load SPECIFICATION      (JSON, with the generator's name as "load")

prints one JSON object a line: `{"ready": true}` once set up, `{"completed": N, "errors": N}` a few times a
second, and at last `{"result": {...}}`, or `{"failed": TEXT}`.
"""
