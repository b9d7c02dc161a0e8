"""How much results depend on settings: the robustness tables of the scANVI paper's supplement, on our data.

    python benchmarks/sensitivity.py                     # everything; resumes from sensitivity.csv
    python benchmarks/sensitivity.py --table priors --data sc_mixology_3tech --seeds 0

- architecture (SCVI): 1 to 3 hidden layers x 5, 10, 20, 50 factors.
- priors (SCVI with a latent library): NB or ZINB x library prior by batch or shared by all batches.
- unobserved (SCANVI, labels of the 10x technology, or of donor 3): n_unobserved_types from 0 to 8.

Columns: negative ELBO of the held-out tenth (nats per cell); entropy of technologies or donors among 50 neighbours, at
most 1; share of 30 neighbours with the cell's type; for SCANVI weighted accuracy on hidden cells of the types that have
labels. Means over seeds are printed, all rows are in the CSV.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from annotation_tasks import BATCH_KEY, UNKNOWN, load
from rows import Rows, fill

import lucidcell as lc
from lucidcell.metrics.annotation import weighted_accuracy
from lucidcell.metrics.clustering import label_purity
from lucidcell.metrics.harmonization import entropy_of_batch_mixing
from lucidcell.models import initial

OUT = Path(__file__).with_name("sensitivity.csv")
DATA = ["sc_mixology_3tech", "baron_human"]
SOURCE_KEY = {"sc_mixology_3tech": "technology", "baron_human": "donor"}
SOURCE = {"sc_mixology_3tech": "10x v2", "baron_human": "3"}  # whose labels are known
TABLES = {
    "architecture": [{"n_layers": n, "n_latent": d} for n, d in product([1, 2, 3], [5, 10, 20, 50])],
    "priors": [
        {"gene_likelihood": likelihood, "library_prior": prior}
        for likelihood, prior in product(["nb", "zinb"], ["batch", "shared"])
    ],
    "unobserved": [{"n_unobserved_types": n} for n in range(9)],
}


def shared_prior(cells) -> np.ndarray:
    """One library prior, of all cells, for every batch."""
    logs = np.log(cells.library.astype(float))
    return np.tile([logs.mean(), logs.std()], (cells.schema.n_batches, 1))


def train(table: str, adata, name: str, settings: dict, seed: int, max_epochs: int | None):
    if table == "unobserved":
        keys = {"batch_key": BATCH_KEY[name], "labels_key": "label", "unlabeled_category": UNKNOWN}
        model = lc.SCANVI(adata, **keys, **settings)
    elif table == "priors":
        model = lc.SCVI(
            adata, batch_key=BATCH_KEY[name], gene_likelihood=settings["gene_likelihood"], use_observed_lib_size=False
        )
        if settings["library_prior"] == "shared":  # no option of the model
            with patch.object(initial, "library_prior", shared_prior):
                model.train(max_epochs, seed=seed, progress=False)
            return model
    else:
        model = lc.SCVI(adata, batch_key=BATCH_KEY[name], **settings)
    model.train(max_epochs, seed=seed, progress=False)
    return model


def measure(model, adata, name: str, hidden: np.ndarray) -> dict[str, float]:
    source = adata.obs[SOURCE_KEY[name]].astype(str).to_numpy()
    truth, latent = adata.obs["cell_type"].astype(str).to_numpy(), model.get_latent_representation()
    row = {
        "negative_elbo": -float(model.get_elbo(indices=model.validation_indices)),
        "mixing": entropy_of_batch_mixing(latent, source, k=50, normalize=True),
        "purity": label_purity(latent, truth, k=30),
    }
    if isinstance(model, lc.SCANVI):
        row["weighted_accuracy"] = weighted_accuracy(truth[hidden], np.asarray(model.predict())[hidden])
    return row


def words(settings: dict) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", nargs="*", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--data", nargs="*", default=DATA, choices=DATA)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--max-epochs", type=int, help="to try the benchmark; models by their defaults otherwise")
    arguments = parser.parse_args()
    settings = {table: {words(one): one for one in TABLES[table]} for table in arguments.table}

    def make(table: str, name: str, words: str, seed: int) -> Rows:
        adata = load(name)
        source = adata.obs[SOURCE_KEY[name]].astype(str).to_numpy()
        hidden = source != SOURCE[name]
        adata.obs["label"] = np.where(hidden, UNKNOWN, adata.obs["cell_type"].astype(str))
        model = train(table, adata, name, settings[table][words], seed, arguments.max_epochs)
        about = {"table": table, "data": name, "settings": words, "seed": seed}
        scored = hidden & np.isin(adata.obs["cell_type"].astype(str), np.unique(adata.obs["label"]))
        return {OUT: [about | measure(model, adata, name, scored)]}

    rows = [
        (table, name, which, seed)
        for table, name in product(arguments.table, arguments.data)
        for which, seed in product(settings[table], arguments.seeds)
    ]
    fill(OUT, ["table", "data", "settings", "seed"], rows, make, arguments.n_jobs)
    means = pd.read_csv(OUT).groupby(["table", "data", "settings"], sort=False).mean(numeric_only=True)
    print(means.drop(columns="seed").round(4).to_string())


if __name__ == "__main__":
    main()
