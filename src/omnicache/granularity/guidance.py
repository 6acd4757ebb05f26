from __future__ import annotations

from typing import Annotated

from omnicache.models.map import ModelMap, Site
from omnicache.policy import Where, value
from omnicache.schema import Choice


@value
class Guidance(Where):
    """The function from the output of one branch of classifier-free guidance to that of the other, within one step.

    The branch ``runs`` is computed at every step, and is the input of the function; at a reused step the other one is estimated.
    Both layouts are served: two calls a step, of which the second is answered, and one call on two halves, of which one runs.
    Which is which is seen in what the scheduler is handed.
    """

    runs: Annotated[str, Choice(("conditional", "unconditional"))] = "conditional"

    def select(self, model: ModelMap) -> tuple[Site, ...]:
        return (model.guidance(self.runs),)
