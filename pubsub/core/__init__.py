"""The rules of topics as values that never wait: batches, records, ownership, cursors, repeats, credit."""
