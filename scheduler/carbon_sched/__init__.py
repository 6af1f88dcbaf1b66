"""carbon-sched: places jobs on Ray clusters by expected CO2e, meters what they use, and books it auditably."""

from __future__ import annotations

__version__ = "0.1.0"
