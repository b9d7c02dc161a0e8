"""Arguments of scvi-tools that lucidcell does not have, and what to use instead."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import NoReturn

from lucidcell.errors import SettingError
from lucidcell.training.settings import Settings

OURS = {
    "accelerator": 'device="cpu" or "cuda"',
    "devices": "device=, or torchrun for several processes",
    "use_gpu": 'device="auto"',
    "plan_kwargs": "learning_rate=, gradient_clip= (the KL warm-up is kl_warmup= of the model)",
    "plan_config": "learning_rate=, gradient_clip=",
    "trainer_config": "checkpoint_dir=, gradient_clip=, precision=",
    "validation_size": "train_size=",
    "shuffle_set_split": "seed=, which decides the split",
    "datasplitter_kwargs": "train_size= and seed=",
    "load_sparse_tensor": "nothing: counts always stay sparse",
    "early_stopping_patience": "early_stopping=True; the patience is a third of max_epochs",
    "early_stopping_monitor": "early_stopping=True, which watches the held-out ELBO",
    "check_val_every_n_epoch": "nothing: the held-out ELBO is computed every epoch",
    "enable_progress_bar": "progress=",
    "enable_checkpointing": "checkpoint_dir=",
    "ckpt_path": "checkpoint_dir= with resume=True",
    "gradient_clip_val": "gradient_clip=",
    "lr": "learning_rate=",
    "n_epochs_kl_warmup": "kl_warmup= of the model, a fraction of training",
    "use_batch_norm": "nothing: encoder and decoder always have it",
    "log_variational": "nothing: the encoder always sees log(1 + counts)",
    "deeply_inject_covariates": "nothing: covariates enter every layer",
    "n_cats_per_cov": "categorical_covariate_keys=",
    "registry": "adata, or lucidcell.load(path)",
}

SAID_OTHERWISE = {"n_latent": "n_topics", "n_topics": "n_latent"}  # between factors and topics
OF_TRAIN = frozenset(field.name for field in fields(Settings))


def refuse_keywords(function: str, unknown: Mapping[str, object], known: tuple[str, ...] = ()) -> None:
    """Raise a sentence about the first unknown keyword, if there is one."""
    for name in unknown:
        if name in OURS:
            raise SettingError(f"{function} has no argument {name!r}, which is scvi-tools'; use {OURS[name]}.")
        if name in OF_TRAIN and function != "train":
            raise SettingError(f"{function} has no argument {name!r}; pass it to train().")
        if SAID_OTHERWISE.get(name) in known:
            raise SettingError(f"{function} has no argument {name!r}; use {SAID_OTHERWISE[name]}=.")
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else "see its help for those it has."
        raise SettingError(f"{function} has no argument {name!r}; {hint}")


def refuse_setup(model: str) -> NoReturn:
    """Raise the sentence about `setup_anndata`."""
    raise SettingError(
        f"there is no setup step: pass the keys to the model itself, {model}(adata, layer=..., batch_key=...)."
    )
