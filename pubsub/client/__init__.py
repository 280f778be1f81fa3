"""The client library of topics."""
