"""The command line: thin click commands over `client`, one file per group. Modules load when a command needs them."""

from __future__ import annotations
