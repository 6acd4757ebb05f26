"""OmniCache's tuned plan against what people would use today, on one model: ``omnicache bench --peers``.

The plan of the work:

1. **The uncached pictures**, once, by a process of their own.
2. **Every setting of every contender on the tuning inputs**: PSNR to the uncached pictures, and a few pairs with the uncached
   pipeline; one batch and one pair where that is enough: far from every goal, or much slower than another setting of the same
   contender that reaches it. ``omnicache.tune`` makes its plans from the same inputs. For each goal the fastest settings that
   reach it are timed again, of contenders that may be the best of their kind, and the fastest of those is chosen; nothing of
   what follows is chosen by.
3. **The chosen settings on held-out inputs**, many pictures and more pairs.
4. **Duels**: for each goal the tuned plan and the best of its rivals, in pairs of their own.

Every contender, and the uncached pipeline too, draws in a process of its own, with the same number of threads. Only one process
works at a time, pairs are interleaved between two of them, who goes first by turns, and who waits does not spin. So a peer that
patches classes changes nobody else's timing, and nobody's rest in memory is another's.

Peers are packages that only this comparison needs: each is imported by its contender's file alone, in the contender's process.
Where one is not installed, the comparison says so and goes on. A setting that raises is listed with its own message; one that
changes no picture and saves no time is listed as such; a contender that changes pictures when it is set to save nothing does
not fit the model, and is listed as such.
"""

from omnicache.measure.peers.contender import Contender, Setting, Worn
from omnicache.measure.peers.size import Size
from omnicache.measure.peers.work import CONTENDERS, Peers

__all__ = ["CONTENDERS", "Contender", "Peers", "Setting", "Size", "Worn"]
