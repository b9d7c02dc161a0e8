from __future__ import annotations

import threading

import pytest
import torch

from lucidcell.maths import threads


def flushes_denormals() -> bool:
    return torch.tensor([1e-45]).mul(1.0).item() == 0.0


@pytest.fixture(params=[(1, False), (2, True)], ids=["plain", "changed by the user"])
def setting(request):
    """Number of torch threads and denormal mode as a user may have set them; put back afterwards."""
    before = torch.get_num_threads(), flushes_denormals()
    torch.set_num_threads(request.param[0])
    torch.set_flush_denormal(request.param[1])
    yield request.param
    torch.set_num_threads(before[0])
    torch.set_flush_denormal(before[1])


@pytest.mark.parametrize("n", [None, 1, 3])
def test_limit_restores_what_it_changes(setting, n):
    with threads.limit(n):
        assert torch.get_num_threads() == 1
        assert flushes_denormals()
        assert threads.n_threads() == (n or threads.available_cores())
    assert (torch.get_num_threads(), flushes_denormals()) == setting
    assert threads.n_threads() == 1


def test_limit_restores_after_an_exception_and_when_nested(setting):
    def fail() -> None:
        with threads.limit(2):
            with threads.limit(3):
                assert threads.n_threads() == 3
            assert threads.n_threads() == 2
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (torch.get_num_threads(), flushes_denormals()) == setting
    assert threads.n_threads() == 1


def test_no_thread_is_left_behind():
    before = threading.active_count()
    for _ in range(5):
        with threads.limit(3):
            threads.run(lambda i: None, 3)
    assert threading.active_count() == before


@pytest.mark.parametrize("n", [1, 2, 4])
def test_run_does_every_task_once(n):
    done: list[int] = []
    with threads.limit(n):
        threads.run(done.append, n)
    assert sorted(done) == list(range(n))


def test_run_outside_of_limit_works_on_the_calling_thread():
    seen = []
    threads.run(lambda i: seen.append(threading.get_ident()), 3)
    assert seen == [threading.get_ident()] * 3


def test_an_exception_in_a_worker_reaches_the_caller():
    def fail(i: int) -> None:
        if i == 1:
            raise ValueError("task 1")

    with threads.limit(2), pytest.raises(ValueError, match="task 1"):
        threads.run(fail, 2)


def test_a_thread_is_woken_for_enough_work_only():
    with threads.limit(2):
        assert [threads.worth(amount, 10) for amount in (0, 9, 19, 20, 500)] == [1, 1, 1, 2, 2]
    with threads.limit(1):
        assert threads.worth(500, 10) == 1
