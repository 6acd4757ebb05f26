"""Which rows to compute even on a reuse step."""

from omnicache.selectors.scores import TokenScores

__all__ = ["TokenScores"]
