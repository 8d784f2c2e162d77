"""Runs in processes of their own that can be killed. Not fetched by pytest: the processes import it."""

import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.process import BaseProcess

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["mmtune.cli", "mmtune.training.run", "mmtune.recipe"])
"""Its children start with torch and transformers imported, and nothing run yet."""


def run_main(argv: list[str], folder: str) -> None:
    """Run a command of mmtune in a folder, its output into a file there; the exit code is the process's."""
    os.setsid()  # its workers are of its group
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a shell's foreground
    multiprocessing.set_start_method("fork", force=True)  # for its workers, as in a process that a shell starts
    os.chdir(folder)
    log = os.open("stderr.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)

    import torch

    from mmtune.cli import main

    torch.set_num_threads(1)
    code = main(argv)
    sys.stderr.flush()
    os._exit(code)


def start(argv: list[str], folder: str) -> BaseProcess:
    """Start a command."""
    process = SERVER.Process(target=run_main, args=(argv, folder))
    process.start()
    return process


def run(argv: list[str], folder: str) -> tuple[int | None, float]:
    """Run a command to its end; return its exit code and its seconds."""
    started = time.monotonic()
    process = start(argv, folder)
    process.join()
    return process.exitcode, time.monotonic() - started
