"""Deterministic simulation of whole ensembles: the real Zab cores, one seed deciding every delay, fault
and crash.
"""
