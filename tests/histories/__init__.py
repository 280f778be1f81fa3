"""Histories of concurrent clients: what is recorded, and the laws they must follow."""
