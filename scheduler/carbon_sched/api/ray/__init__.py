"""Ray's own job protocol over our queue: what `ray job submit` and Ray's SDK speak, unmodified.

The facts of the protocol are Ray's (REST reference of Ray 2.x, "Ray Jobs REST API"). Where a queue differs from one
cluster, README.md in this folder says how.
"""
