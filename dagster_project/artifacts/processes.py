"""Processes that do a run's work: started fast, and gone when the process that started them is."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def share_cores() -> None:
    """Has processes started from now on compute with one thread each, unless the environment says otherwise.

    Several that take two on the same cores wait for each other; tiny models are faster with one in any case.
    """
    for variable in THREAD_VARIABLES:
        os.environ.setdefault(variable, "1")


def process_context(preload: Sequence[str] = ()) -> ForkServerContext:
    """Returns how to start processes: as forks of one process that has nothing but `preload` imported.

    So what they all need is imported once, and nothing is forked that has threads or open connections. Processes
    started from such processes are forks of the same one.

    Args:
        preload: Modules to import once. Only the first call in a program decides.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


_watching = 0
"""The process that watches its parent: not true of its forks."""


def die_with_parent() -> None:
    """Ends this process when the one that started it ends, however that does: an orphan would go on writing artifacts.

    Only where `multiprocessing` started it.
    """
    global _watching
    parent = multiprocessing.parent_process()
    if parent is None or _watching == os.getpid():
        return
    _watching = os.getpid()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
