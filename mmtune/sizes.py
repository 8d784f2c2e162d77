"""Sizes in bytes as messages say them."""

GIB = 2**30


def gib(size: float) -> str:
    """Return a size in bytes such as `1.50 GiB`."""
    return f"{size / GIB:.2f} GiB"


def in_gib(size: float) -> str:
    """Return a size in bytes in GiB with three digits behind the point and without the unit, for tables."""
    return f"{size / GIB:.3f}"
