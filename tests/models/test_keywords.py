"""Users of scvi-tools: every argument of theirs that we lack is answered with ours."""

from __future__ import annotations

import pytest
from battery import assert_sentence

from lucidcell.errors import SettingError
from lucidcell.models.keywords import OURS, refuse_keywords
from lucidcell.models.sce2tm import SCE2TM
from lucidcell.models.scvi import SCVI


@pytest.mark.parametrize("name", OURS)
def test_each_argument_of_scvi_tools_is_answered_with_ours(simulated, name):
    with pytest.raises(SettingError) as caught:
        SCVI(simulated, n_hidden=4, n_latent=2).train(**{name: None})
    assert f"train has no argument {name!r}, which is scvi-tools'; use {OURS[name]}" in str(caught.value)
    assert_sentence(caught.value)
    with pytest.raises(SettingError, match=f"SCVI has no argument '{name}', which is scvi-tools'"):
        SCVI(simulated, **{name: None})


def test_none_of_those_is_an_argument_of_ours():
    import inspect

    ours = {*inspect.signature(SCVI.__init__).parameters, *inspect.signature(SCVI.train).parameters}
    assert ours.isdisjoint(OURS)


def test_what_is_named_instead_exists():
    """Whatever stands before an equals sign in an answer is an argument of the model, of train or of load."""
    import inspect
    import re

    from lucidcell.models.base import load

    functions = (SCVI.__init__, SCVI.train, load)
    ours = {name for function in functions for name in inspect.signature(function).parameters}
    named = {name for answer in OURS.values() for name in re.findall(r"([a-z_]+)=", answer)}
    assert named <= ours, named - ours


def test_misspelt_arguments_get_a_hint(simulated):
    with pytest.raises(SettingError, match="SCVI has no argument 'gene_likelyhood'; did you mean 'gene_likelihood'"):
        SCVI(simulated, gene_likelyhood="zinb")
    with pytest.raises(SettingError, match="SCVI has no argument 'zzz'; see its help") as caught:
        SCVI(simulated, zzz=1)
    assert_sentence(caught.value)


def test_misspelt_arguments_of_train_get_a_hint_too(simulated):
    model = SCVI(simulated, n_hidden=4, n_latent=2)
    with pytest.raises(SettingError, match="train has no argument 'max_epoch'; did you mean 'max_epochs'") as caught:
        model.train(max_epoch=3)
    assert_sentence(caught.value)


def test_keys_of_the_data_are_hinted_at_as_well(simulated):
    with pytest.raises(SettingError, match="did you mean 'batch_key'"):
        SCVI(simulated, batch_keys="batch")


def test_setup_is_not_needed(simulated):
    with pytest.raises(SettingError, match=r"no setup step: pass the keys to the model itself, SCVI\(adata") as caught:
        SCVI.setup_anndata(simulated, batch_key="batch")
    assert_sentence(caught.value)


def test_no_unknown_argument_is_no_error():
    refuse_keywords("train", {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_latent": 5}, "SCE2TM has no argument 'n_latent'; use n_topics=."),
        ({"max_epochs": 5}, "SCE2TM has no argument 'max_epochs'; pass it to train."),
        ({"n_topics": 1}, "n_topics is 1; it must be a whole number of at least 2."),
    ],
)
def test_topics_are_called_topics(simulated, arguments, message):
    with pytest.raises(SettingError, match=message):
        SCE2TM(simulated, **arguments)
