"""Memory of well-known cards, so that a run can be planned for one that is not here."""

from mmtune.lookup import lookup

CARDS = {
    "rtx-3060": 12288,
    "rtx-3090": 24576,
    "rtx-4060-ti-16gb": 16380,
    "rtx-4070": 12282,
    "rtx-4080": 16376,
    "rtx-4090": 24564,
    "rtx-5090": 32607,
    "rtx-a6000": 49140,
    "rtx-6000-ada": 49140,
    "t4": 15360,
    "v100-16gb": 16384,
    "v100-32gb": 32768,
    "a10": 23028,
    "a30": 24576,
    "a40": 46068,
    "l4": 23034,
    "l40s": 46068,
    "a100-40gb": 40960,
    "a100-80gb": 81920,
    "h100-80gb": 81559,
    "h200": 143771,
}
"""Name -> MiB, as `nvidia-smi` reports it; where a card has ECC, with it on. A driver's version changes a few MiB."""


def find_card(name: str) -> tuple[str, int]:
    """Return the name of a card as the table has it, however it is written, and the bytes of its memory.

    Raises:
        ConfigError: it is not in the table; the message names the nearest one.
    """
    written = name.lower().replace(" ", "-").replace("_", "-")
    return written, lookup(CARDS, written, "--gpu") << 20
