"""zoolog's coordination core: a Zab ensemble and a znode tree that speak ZooKeeper's client protocol."""
