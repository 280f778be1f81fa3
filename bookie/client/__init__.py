"""The ledger client: trio shells around the cores of `bookie.ledger`."""
