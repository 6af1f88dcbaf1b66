"""Ray clusters over plain HTTP, what is sent to them, and the local head. An adapter: reached through `ports` only."""

from __future__ import annotations
