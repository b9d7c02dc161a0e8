"""Our Adam against torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lucidcell.maths import threads
from lucidcell.training.optimizer import Adam

SHAPES = [(3,), (40, 70), (300, 301), ()]  # the third is more than one piece of work


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def give_gradients(ours: list[nn.Parameter], step: int, without: int | None = None) -> None:
    generator = torch.Generator().manual_seed(step)
    for i, parameter in enumerate(ours):
        gradient = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 10.0 ** (i - 2)
        parameter.grad = None if i == without else gradient


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_updates_are_those_of_torch(dtype, n_threads):
    ours, theirs = parameters(dtype), parameters(dtype)
    reference = torch.optim.Adam(theirs, lr=0.0, eps=1e-8)
    with threads.limit(n_threads):
        adam = Adam(ours, eps=1e-8)
        for step in range(30):
            rate = 1e-2 * (1 + step % 5)
            give_gradients(ours, step)
            give_gradients(theirs, step)
            adam.step(rate)
            reference.param_groups[0]["lr"] = rate
            reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=2e-5, atol=2e-6)


def test_a_parameter_without_gradient_stays_where_it_is():
    ours = parameters()
    before = ours[1].detach().clone()
    adam = Adam(ours)
    for step in range(3):
        give_gradients(ours, step, without=1)
        adam.step(0.1)
    assert torch.equal(ours[1], before)
    assert not torch.equal(ours[0], parameters()[0])


def test_a_transposed_gradient_is_read_in_its_own_order():
    one, other = nn.Parameter(torch.zeros(4, 5)), nn.Parameter(torch.zeros(4, 5))
    gradient = torch.arange(20.0).reshape(5, 4).t() - 7
    one.grad, other.grad = gradient, gradient.contiguous()
    for parameter in (one, other):
        Adam([parameter]).step(0.1)
    assert torch.equal(one, other)


def test_state_restored_goes_on_bit_for_bit():
    whole, resumed = parameters(), parameters()
    adam = Adam(whole)
    for step in range(6):
        if step == 3:
            state = {name: value.clone() for name, value in adam.state().items()}
            with torch.no_grad():
                for target, source in zip(resumed, whole, strict=True):
                    target.copy_(source)
        give_gradients(whole, step)
        adam.step(0.01)
    again = Adam(resumed)
    again.load_state(state)
    for step in range(3, 6):
        give_gradients(resumed, step)
        again.step(0.01)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_gradients_are_cleared():
    ours = parameters()
    give_gradients(ours, 0)
    Adam(ours).clear_gradients()
    assert [p.grad for p in ours] == [None] * len(ours)
