"""The methods, one file a paper. Importing this package registers them all."""

from omnicache.methods import (
    dbcache,
    deepcache,
    fewer_steps,
    first_block_cache,
    foca,
    fora,
    hicache,
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
    "dbcache",
    "deepcache",
    "fewer_steps",
    "first_block_cache",
    "foca",
    "fora",
    "hicache",
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
