from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode

Instead = Callable[[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]


class Inside(TorchFunctionMode):
    """While a module runs, answers its calls of one function of torch: ``instead(function, args, kwargs)``.

    So the parts of a module are found by what it calls, whatever class it or its processor is of, and its own code does all the
    rest: norms, tables of positions, activations, adapters. It holds for the thread that entered it. What calls another
    implementation (an attention library, a compiled graph) is not seen.
    """

    def __init__(self, function: Callable[..., Any], instead: Instead):
        super().__init__()
        self._function, self._instead = function, instead

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is self._function:
            return self._instead(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))
