"""The bookie server: ledger requests over coord.rpc, on top of `bookie.storage`."""
