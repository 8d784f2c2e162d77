"""`python -m mmtune ...` and `torchrun -m mmtune ...`."""

from mmtune.cli import entry_point

if __name__ == "__main__":
    entry_point()
