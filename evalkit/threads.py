"""torch's work on several threads of one core each, where a kernel cut among threads would cost more.

A kernel that is cut among threads waits for the last of them, and what Python does between two kernels keeps
all but one core idle. So whole items go side by side, every kernel of one on the thread that it runs on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2  # items a thread, begun or done, that the caller has not taken


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block's kernels on the calling thread alone.

    For small work around :func:`in_threads`: the other threads of a kernel go on waiting busily for some 5 ms
    after it, and take the cores from whoever works next.
    """
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)


def in_threads(run: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result]:
    """Yield ``run(item)`` in order, the items side by side on as many threads as torch would use in one.

    A single item runs on one thread too: kernels cut among threads round otherwise. So does what the caller
    does with one result before it asks for the next, see :func:`one_thread`. Results wait for the caller, but
    no more of them than twice the threads: then no further item is begun. Context variables are those of the
    caller.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(run, items)
        return
    waiting: deque[Future[Result]] = deque()
    # Workers set it for themselves, but torch also hands the last value to threads born later.
    with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for item in items:
                if len(waiting) == _AHEAD * threads:
                    yield waiting.popleft().result()
                # A copy of the context for each item: none can be entered by two threads at once.
                waiting.append(pool.submit(copy_context().run, run, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
