"""The methods, one file a paper. Importing this package registers them all."""

from omnicache.methods import (
    deepcache,
    fewer_steps,
    fora,
    none,
    omnicache_layered,
    omnicache_md,
    omnicache_trajectory,
    speca,
    taylorseer,
    teacache,
    toca,
    tomesd,
)

__all__ = [
    "deepcache",
    "fewer_steps",
    "fora",
    "none",
    "omnicache_layered",
    "omnicache_md",
    "omnicache_trajectory",
    "speca",
    "taylorseer",
    "teacache",
    "toca",
    "tomesd",
]
