"""The blocks of a model: its layers, one upon the other."""

from torch import nn


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Return the blocks of a decoder or tower, from the first to the last.

    They are the list of modules that holds most parameters, under whatever name; none where there is no such list.
    """
    lists = [child for child in module.modules() if isinstance(child, nn.ModuleList)]
    sizes = [sum(parameter.numel() for parameter in child.parameters()) for child in lists]
    return list(lists[sizes.index(max(sizes))]) if lists else []
