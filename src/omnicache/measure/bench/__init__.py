"""All methods against one another and against fewer steps, on one model: ``omnicache bench``.

The plan of the work, in an order in which whatever cuts it short leaves the most useful part:

1. The uncached samples, once, for all; and uncached samples of other seeds, which KID compares with.
2. **Every setting on a few samples.** A setting is a method with one value of its main knob (``sweep=`` of ``@method``; of a
   calibrated method an option of the calibration). It is drawn once under a counter of operations, which is its warm-up, too, then
   each of the first batches in a pair with the uncached pipeline. ``fewer-steps`` comes first, then the middle value of every
   method, then the values beside it; what is slow to calibrate comes last.
3. **All samples only where they say something**: ``fewer-steps``, the frontier of speed and likeness and what is close to it, and
   of each method the setting that stands best against fewer steps. Further pairs are timed on further batches, and their pictures
   count among the samples.
4. What the cache holds at three resolutions, of each method's best.

Speed and quality belong to the same batches, since methods that decide by what they see follow the worst sample of a batch.

Each result is appended to ``rows.jsonl`` at once, under a key of the method, its options, the model with its weights, steps,
guidance, batch, device, torch and the sources: the same command goes on where it was, and what has changed is measured anew.

Two settings of one speed are compared sample by sample, on the same seeds: what a method is ahead of fewer steps is a paired
difference with its own 95 % interval, and between two numbers of steps it is read off the straight line.

What it should take for ``emoji`` with 20 steps, worked out from processor time with 1.7 cores at work: an uncached picture 0.23 s;
a setting in part 2, which draws eight pictures without and nine with a cache and counts, 4 s; in part 3 it takes 44 s, of fewer
steps 25 s. With forty methods these are 190 settings and about 50 of them closely, 13 and 35 minutes; calibrations come on top.
What ``minutes`` does not suffice for is left out and named.
"""

from omnicache.measure.bench.setting import Setting, settings_of
from omnicache.measure.bench.size import Size
from omnicache.measure.bench.work import Bench

__all__ = ["Bench", "Setting", "Size", "settings_of"]
