"""Packages of the extra `data`, which only some sources need: imported when a source is read."""

import importlib
from types import ModuleType

from mmtune.errors import DataError


def import_extra(name: str, place: object, *, package: str | None = None) -> ModuleType:
    """Return a module of an optional package.

    Args:
        name: the module.
        place: the source that needs it.
        package: what the package is called, where its name differs from the module's.

    Raises:
        DataError: it is not installed; the message holds the command.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        message = f"needs the package {package or name}, which is not installed. Run: pip install 'mmtune[data]'"
        raise DataError(place, message) from None
