"""The hub server: owns topics, appends batches to their ledgers, pushes them to subscribers."""
