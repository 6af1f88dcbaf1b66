"""What travels to a cluster with every job: the wrapper, the machine meter and their journal.

Standard library and pynvml only, Python 3.9+, and nothing else of ours: it runs inside other people's images.
"""

from __future__ import annotations
