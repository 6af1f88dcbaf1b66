"""The platform team's rules: their form, reading them with line-exact errors, and the presets that are shipped.

`model` holds what the rest of the system sees; `schema` and `document` are known to `load` and `presets` alone.
"""

from __future__ import annotations
