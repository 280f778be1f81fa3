"""ZooKeeper's client protocol as values: encoding, records, numbers, and the batch that servers replicate."""
