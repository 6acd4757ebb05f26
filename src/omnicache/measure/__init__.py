"""How far pictures are from others, and how sure one can be of it.

The metrics are torchmetrics' where it has them; it is imported on the first call of one that needs it.
Pictures are ``(n, 3, h, w)`` in [0, 1], or Pillow images for ``psnr`` and ``ssim``; features ``(n, d)``.
"""

from omnicache.measure.accuracy import accuracy
from omnicache.measure.confidence95 import confidence95
from omnicache.measure.footprint import Footprint, footprint
from omnicache.measure.kid import kid
from omnicache.measure.nearest import nearest
from omnicache.measure.psnr import psnr
from omnicache.measure.ssim import ssim
from omnicache.measure.task import Input, Task

__all__ = ["Footprint", "Input", "Task", "accuracy", "confidence95", "footprint", "kid", "nearest", "psnr", "ssim"]
