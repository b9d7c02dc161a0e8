from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np
import pytest
import torch
from battery import assert_sentence

from lucidcell.errors import SettingError
from lucidcell.maths import threads
from lucidcell.maths.fused import has_bfloat16_products, is_low_precision, low_precision
from lucidcell.training.settings import Settings, environment


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_epochs": 0}, "max_epochs is 0; it must be a whole number of at least 1, or None"),
        ({"max_epochs": 2.5}, "max_epochs is 2.5"),
        ({"max_epochs": True}, "max_epochs is True"),
        ({"max_epochs": "ten"}, "max_epochs is 'ten'"),
        ({"batch_size": 1}, "batch_size is 1; it must be a whole number of at least 2"),
        ({"batch_size": 32.0}, "batch_size is 32.0"),
        ({"num_threads": 0}, "num_threads is 0"),
        ({"seed": -1}, "seed is -1; it must be a whole number of at least 0."),
        ({"seed": None}, "seed is None"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"learning_rate": 0}, "learning_rate is 0; it must be a positive number, or None"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"gradient_clip": -1.0}, "gradient_clip is -1.0"),
        ({"train_size": 0}, "train_size is 0; it must be above 0 and at most 1"),
        ({"train_size": "most"}, "train_size is 'most'"),
        ({"precision": "half"}, "precision is 'half'; it must be 'auto', 'float32' or 'bfloat16'"),
        ({"device": "tpu"}, "device 'tpu' is not to be had here"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not to be had here"),
    ],
)
def test_values_without_meaning_are_refused(wrong, said):
    with pytest.raises(SettingError) as caught:
        Settings(**wrong).resolve(100)
    assert said in str(caught.value)
    assert_sentence(caught.value)


def test_resolving_leaves_no_default_open_and_keeps_what_is_given():
    resolved = Settings(batch_size=17, seed=5).resolve(1000)
    assert [name for name, value in asdict(resolved).items() if value is None] == ["gradient_clip"]
    assert (resolved.batch_size, resolved.seed) == (17, 5)
    assert resolved.precision in ("float32", "bfloat16")
    assert resolved.device in ("cpu", "cuda")
    assert resolved.resolve(1000) == resolved


def test_more_cells_never_mean_more_epochs():
    epochs = [Settings().resolve(n).max_epochs for n in (100, 1500, 3000, 20_000, 200_000, 2_000_000)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[-1] >= 1


def test_few_cells_are_visited_more_often_and_a_model_can_ask_for_steps():
    assert [Settings().resolve(round(n / 0.9)).max_epochs for n in (90, 1500, 2000)] == [120, 80, 60]
    assert Settings().resolve(100, share=2.6, fewest_steps=2000).max_epochs == 2000
    assert Settings(batch_size=45).resolve(100, fewest_steps=1000).max_epochs == 500
    assert Settings().resolve(10_000, fewest_steps=2000).max_epochs == Settings().resolve(10_000).max_epochs
    assert Settings(max_epochs=3).resolve(100, fewest_steps=2000).max_epochs == 3


def test_large_batches_are_halved_where_an_epoch_would_have_fewer_than_three():
    sizes = [Settings(train_size=1.0).resolve(n, batch_size=512).batch_size for n in (100, 411, 513, 1024, 1025, 9999)]
    assert sizes == [128, 128, 256, 256, 512, 512]
    assert Settings().resolve(100).batch_size == 128
    assert Settings(batch_size=512).resolve(100, batch_size=512).batch_size == 512


def test_numpy_numbers_become_plain_ones():
    resolved = Settings(max_epochs=np.int64(3), learning_rate=np.float32(0.5), seed=np.uint8(4)).resolve(100)
    assert json.loads(json.dumps(asdict(resolved)))["learning_rate"] == 0.5
    assert type(resolved.max_epochs) is int


def test_low_precision_is_that_of_the_thread_that_asked_for_it(monkeypatch):
    monkeypatch.setattr("lucidcell.maths.fused.has_bfloat16_products", lambda: True)
    with low_precision(True), ThreadPoolExecutor(1) as other:
        assert is_low_precision()
        assert not other.submit(is_low_precision).result()
    assert not is_low_precision()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("fails", [False, True])
def test_environment_is_restored_also_after_an_exception(precision, fails):
    settings = Settings(precision=precision, num_threads=2, seed=9).resolve(100)
    before = torch.get_float32_matmul_precision(), torch.get_num_threads(), torch.get_rng_state(), threads.n_threads()
    try:
        with environment(settings):
            assert torch.get_float32_matmul_precision() == "highest"
            assert is_low_precision() == (precision == "bfloat16" and has_bfloat16_products())
            assert threads.n_threads() == 2
            first = torch.rand(3)
            if fails:
                raise KeyError
    except KeyError:
        pass
    after = torch.get_float32_matmul_precision(), torch.get_num_threads(), torch.get_rng_state(), threads.n_threads()
    assert not is_low_precision()
    assert torch.equal(before[2], after[2])
    assert (before[:2], before[3]) == (after[:2], after[3])
    with environment(settings):
        assert torch.equal(torch.rand(3), first), "the seed decides"
