"""Items side by side: order, threads, errors, context variables."""

import time
from contextvars import ContextVar

import pytest
import torch

from evalkit.threads import in_threads, one_thread


@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_done_between_items_stays_on_one_thread(workers: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(workers)
    try:
        seen = [(item, torch.get_num_threads()) for item in in_threads(lambda item: 2 * item, range(5))]
        assert seen == [(0, 1), (2, 1), (4, 1), (6, 1), (8, 1)]
        assert torch.get_num_threads() == workers

        with pytest.raises(ZeroDivisionError):
            list(in_threads(lambda item: 1 // item, [1, 0]))
        assert torch.get_num_threads() == workers

        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == workers
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [1, 3])
def test_items_see_the_context_variables_of_the_caller(workers: int) -> None:
    variable = ContextVar("variable", default=0)
    before, token = torch.get_num_threads(), variable.set(7)
    torch.set_num_threads(workers)
    try:
        assert list(in_threads(lambda item: item * variable.get(), range(4))) == [0, 7, 14, 21]
    finally:
        torch.set_num_threads(before)
        variable.reset(token)


def test_results_that_nobody_takes_do_not_pile_up() -> None:
    before = torch.get_num_threads()
    begun: list[int] = []
    torch.set_num_threads(2)
    try:
        results = in_threads(begun.append, range(50))
        next(results)
        time.sleep(0.1)
        assert len(begun) <= 5
        results.close()
        assert len(begun) <= 5
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
