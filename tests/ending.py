"""Ends what serves until a signal, once it answers: how tests run `mmtune serve` in their own process."""

import os
import signal
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager


@contextmanager
def ended_once_it_answers(url):
    """Send this process SIGTERM when a URL answers, so that a verb that serves it returns.

    Args:
        url: of this machine; any status counts.
    """
    is_over = threading.Event()

    def watch():
        while not is_over.wait(0.1):
            try:
                urllib.request.urlopen(url, timeout=10).close()
            except urllib.error.HTTPError:
                pass
            except OSError:
                continue
            os.kill(os.getpid(), signal.SIGTERM)
            return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(30)
