"""What lies around and would make a run wait or fail: locks of builds that were killed, compilers that are missing."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from mmtune.doctor.declared import installed_version
from mmtune.doctor.findings import Finding

COMPILERS = ("g++", "c++", "clang++")
FRESH_SECONDS = 600.0


def about_builds(extensions_folder: str | None) -> Iterator[Finding]:
    """Yield locks in the folder where torch compiles kernels, and what DeepSpeed misses to compile its own.

    Args:
        extensions_folder: None where torch cannot be imported.
    """
    for lock in sorted(Path(extensions_folder).rglob("lock")) if extensions_folder else ():
        age = time.time() - lock.stat().st_mtime
        text = f"{lock} was made {age / 60:.0f} minutes ago: DeepSpeed waits for that build without a word"
        if age < FRESH_SECONDS:
            yield Finding("traps", str(lock), "note", text, "Wait: a program may be compiling there.")
        else:
            mend = f"If no program compiles there, a build was killed: delete {lock.parent}"
            yield Finding("traps", str(lock), "note", text, mend)
    if installed_version("deepspeed") is not None:
        if not any(map(shutil.which, COMPILERS)):
            text = "DeepSpeed compiles kernels (offload, ZeRO) with a C++ compiler, and there is none"
            yield Finding("traps", "compiler", "note", text, "apt-get install g++, or what your system has for it")
        if shutil.which("ninja") is None and installed_version("ninja") is None:
            yield Finding(
                "traps", "ninja", "note", "DeepSpeed compiles with ninja, which is missing", "pip install ninja"
            )
