"""Entries by family of models; importing this package fills ``DENOISERS``."""

import importlib
import pkgutil

for found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{found.name}")
