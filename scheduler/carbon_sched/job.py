"""For jobs that may be suspended: the run's name, where its state lies, whether it was resumed, and when to save it.

On clusters where this package is not installed, `from carbon_sched_runtime import job` is the same; it
travels with every job. Its page says how a job uses it.
"""

from __future__ import annotations

from carbon_sched_runtime.job import checkpoint_dir, is_resumed, restored, run_name, slice_of, stop_asked, storage

__all__ = ["checkpoint_dir", "is_resumed", "restored", "run_name", "slice_of", "stop_asked", "storage"]
