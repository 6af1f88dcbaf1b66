"""Deciding where and when jobs run: pure functions of a snapshot (numpy, no I/O, no clock)."""
