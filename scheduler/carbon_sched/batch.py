"""Batch inference that may stop between shards: each item is answered once, however often the job is stopped.

On clusters where this package is not installed, `from carbon_sched_runtime import batch` is the same; it travels with
every job. Its page says how a job uses it.
"""

from __future__ import annotations

from carbon_sched_runtime.batch import Shard, folder, results, shards

__all__ = ["Shard", "folder", "results", "shards"]
