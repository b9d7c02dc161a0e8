"""What a topic model says: shares of topics, genes of topics, and what happens without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from lucidcell.errors import SettingError
from lucidcell.readouts.latent import distribution_of_cells
from lucidcell.readouts.top_genes import gene_signal

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

    from lucidcell.models.topic_model import TopicModel

RANKINGS = ("signal", "relevance", "lift", "probability", "published")
MODES = ("renormalize", "zero")
MOST_COMPONENTS = 50  # of the points, in the run folder


def topic_shares(model: TopicModel, adata: AnnData | None, indices: Sequence[int] | np.ndarray | None) -> pd.DataFrame:
    """Cells x topics; see `TopicModel.get_topics`."""
    from scipy.special import softmax

    cells = model.cells_of(adata, indices)
    z = distribution_of_cells(model, cells)[0]
    names = pd.Index(cells.cell_names, name="cell")
    return pd.DataFrame(softmax(z.astype(float), axis=1), index=names, columns=model.factor_names)


def topic_genes(model: TopicModel, ranking: str, weight: float) -> pd.DataFrame:
    """Genes x topics; see `TopicModel.get_topic_genes`."""
    if ranking not in RANKINGS:
        raise SettingError(f"ranking is {ranking!r}; it must be one of {', '.join(RANKINGS)}.")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
        raise SettingError(f"weight is {weight!r}; it must be between 0 and 1.")
    model._check_trained()
    names = pd.Index(model.schema.gene_names, name="gene")
    if ranking == "published":
        with torch.no_grad():
            values = model.module.membership().double().numpy()
        table = pd.DataFrame(values, names, model.factor_names)
    elif ranking == "signal":
        table = gene_signal(model.get_loadings(center=True), model.module.mean_count.double().numpy())
    else:
        of_topic = model.get_archetypes()
        lift = np.log(of_topic.div(model.mean_expression(), axis=0))
        by_ranking = {
            "relevance": weight * np.log(of_topic) + (1 - weight) * lift, "lift": lift, "probability": of_topic,
        }  # fmt: skip
        table = by_ranking[ranking]
    table.attrs = {"ranking": ranking} | ({"weight": float(weight)} if ranking == "relevance" else {})
    return table


def points(model: TopicModel, of: Callable[[], Tensor], names: Sequence[str], what: str) -> pd.DataFrame:
    """Rows of an embedding with their names."""
    model._check_trained()
    with torch.no_grad():
        values = of().numpy().copy()
    return pd.DataFrame(values, index=pd.Index(names, name=what))


def write(model: TopicModel, adata: AnnData) -> None:
    """Write shares and genes of the topics into obsm and varm; see `TopicModel.write`."""
    genes = model.get_topic_genes().reindex([str(name) for name in adata.var_names])
    adata.obsm[f"{model.name}_topics"] = model.get_topics(adata).to_numpy(np.float32)
    adata.varm[f"{model.name}_topic_genes"] = genes.to_numpy(np.float32)


def principal_points(model: TopicModel) -> pd.DataFrame:
    """Genes and topics by the principal components of their points: name, kind, PC1 ..."""
    from sklearn.decomposition import PCA

    genes, of_topics = model.get_gene_embedding(), model.get_topic_embedding()
    values = np.concatenate([genes, of_topics])
    n = min(MOST_COMPONENTS, *values.shape)
    components = PCA(n, random_state=0).fit_transform(values)
    table = pd.DataFrame(components, columns=[f"PC{i + 1}" for i in range(n)])
    table.insert(0, "name", [*genes.index, *of_topics.index])
    table.insert(1, "kind", ["gene"] * len(genes) + ["topic"] * len(of_topics))
    return table


def perturbed(
    model: TopicModel,
    off: str | Sequence[str],
    adata: AnnData | None,
    indices: Sequence[int] | np.ndarray | None,
    mode: str,
) -> pd.DataFrame:
    """Cells x genes, log2 fold changes; see `TopicModel.perturb_topics`."""
    wanted = [off] if isinstance(off, str) else list(off)
    unknown = [name for name in wanted if name not in model.factor_names]
    if unknown or not wanted or len(set(wanted)) == len(model.factor_names):
        raise SettingError(
            f"off names {unknown or wanted}: give some of the {len(model.factor_names)} topics "
            f"{model.factor_names[0]} to {model.factor_names[-1]}, and not all."
        )
    if mode not in MODES:
        raise SettingError(f"mode is {mode!r}; it must be one of {', '.join(MODES)}.")
    cells = model.cells_of(adata, indices)
    at, vae, found = [model.factor_names.index(name) for name in wanted], model.module, []
    with torch.no_grad():
        for batch in model.batches(cells):
            z, design = vae.encode(batch).mu, vae.design(batch)
            without = z.clone()
            without[:, at] = -torch.inf
            theta = vae.link(z)
            changed = vae.link(without)
            if mode == "zero":
                changed = theta.clone()
                changed[:, at] = 0
            change = vae.log_expression(changed, design) - vae.log_expression(theta, design)
            found.append((change / np.log(2)).numpy())
    return pd.DataFrame(np.concatenate(found), index=cells.cell_names, columns=list(model.schema.gene_names))
