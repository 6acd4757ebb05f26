"""OmniCache: diffusion models two to five times faster at inference, without retraining.

>>> with omnicache.cache(pipe, "taylorseer", interval=5) as run:
...     image = pipe("a red fox in snow").images[0]
>>> print(run)
"""

from omnicache.api import cache, calibrate, disable, enable, methods
from omnicache.errors import OmniCacheError
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.registry import method

__version__ = "0.1.0"
__all__ = ["OmniCacheError", "Plan", "Policy", "cache", "calibrate", "disable", "enable", "method", "methods"]
