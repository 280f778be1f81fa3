"""zoolog's ledgers: replicated, fenced, append-only logs on storage servers."""
