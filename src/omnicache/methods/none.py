from __future__ import annotations

from omnicache.plan import Plan
from omnicache.registry import method


@method("none", off={}, axes={"when": "always", "where": "nowhere", "how": "-", "fix": "-"})
def none() -> Plan:
    """No caching: the reference that every comparison shows."""
    return Plan("none")
