"""OmniCache: diffusion models faster at inference, without retraining, by reusing and forecasting what was already computed.

>>> with omnicache.cache(pipe, "taylorseer", interval=5) as run:
...     image = pipe("a red fox in snow").images[0]
>>> print(run)
"""

from omnicache.api import cache, calibrate, check, disable, enable, methods, tune
from omnicache.errors import OmniCacheError
from omnicache.guards import Guards
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.registry import method

__version__ = "0.1.0"
__all__ = ["Guards", "OmniCacheError", "Plan", "Policy"]
__all__ += ["cache", "calibrate", "check", "disable", "enable", "method", "methods", "tune"]


def __getattr__(name: str) -> object:
    """``omnicache.zoo``, ``omnicache.measure`` and the other edges, imported when they are first used."""
    if name in ("zoo", "measure", "report", "integrations"):
        import importlib

        return importlib.import_module(f"omnicache.{name}")
    raise AttributeError(f"module 'omnicache' has no attribute {name!r}")
