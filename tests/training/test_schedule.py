from __future__ import annotations

import numpy as np
import pytest

from lucidcell.training.schedule import one_cycle, warm_up

PROGRESS = np.linspace(0, 1, 1001)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 0.99])
def test_warm_up_always_reaches_one_and_stays(fraction):
    weights = [warm_up(p, fraction) for p in PROGRESS]
    assert np.all(np.diff(weights) >= 0)
    assert all(w == 1.0 for p, w in zip(PROGRESS, weights, strict=True) if p >= fraction)
    assert weights[0] == (1.0 if fraction == 0 else 0.0)


def test_warm_up_is_linear():
    assert warm_up(0.1, 0.4) == pytest.approx(0.25)


def test_one_cycle_rises_to_its_peak_and_falls_to_its_end():
    rates = np.array([one_cycle(p) for p in PROGRESS])
    peak = rates.argmax()
    assert rates[0] == pytest.approx(0.1)
    assert rates[peak] == pytest.approx(1.0)
    assert PROGRESS[peak] == pytest.approx(0.1)
    assert np.all(np.diff(rates[: peak + 1]) > 0)
    assert np.all(np.diff(rates[peak:]) < 0)
    assert rates[-1] == pytest.approx(1e-3)


def test_one_cycle_never_goes_below_its_end():
    assert one_cycle(1.5) == pytest.approx(1e-3)
    assert one_cycle(1.0, rise=0.5, start=0.2, end=0.05) == pytest.approx(0.05)
    assert one_cycle(0.0, rise=0.5, start=0.2, end=0.05) == pytest.approx(0.2)
