"""One scvi-tools run on one data set, timed and saved: the other side of `time_to_quality.py`.

    python benchmarks/peer_scvi_tools.py kang_pbmc_12k default 0 out/
    python benchmarks/peer_scvi_tools.py kang_pbmc_12k default 0 "" 4     # four epochs, for their pace; nothing saved

`default` is scvi-tools as it comes (batch 128, Adam 1e-3, its own number of epochs, 400 epochs of KL warm-up), with the
NB likelihood on both sides.
`tuned` is what an experienced user would set: batch 512, learning rate 4e-3 lowered on plateaus, KL warm-up over 20
epochs, early stopping on the held-out ELBO with patience 20.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
BATCH_KEY = {"kang_pbmc_12k": "donor", "baron_human": "donor"}
N_TOP_GENES = {"worm_neuron": 2000}


def load(name: str) -> ad.AnnData:
    """A data set of `shared/data` with the genes that the benchmarks use."""
    adata = ad.read_h5ad(DATA / f"{name}.h5ad")
    adata.obs_names_make_unique()
    if name in N_TOP_GENES:
        import scanpy as sc

        logged = adata.copy()
        sc.pp.normalize_total(logged, target_sum=1e4)
        sc.pp.log1p(logged)
        sc.pp.highly_variable_genes(logged, n_top_genes=N_TOP_GENES[name], flavor="seurat")
        adata = adata[:, logged.var["highly_variable"].to_numpy()].copy()
        adata = adata[np.asarray(adata.X.sum(1)).ravel() > 0].copy()
    return adata


def split(n_cells: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Train and held-out rows: the split that lucidcell makes from the same seed."""
    order = np.random.default_rng(seed).permutation(n_cells)
    n_held_out = round(0.1 * n_cells)
    return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])


def main(name: str, recipe: str, seed: int, out: Path | None, max_epochs: int | None = None) -> None:
    import scvi
    import torch
    from lightning.pytorch.callbacks import Callback

    class Clock(Callback):
        """Wall time at the end of every training epoch."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_train_epoch_start(self, trainer, module) -> None:
            if not self.ends:
                self.ends.append(time.perf_counter())

        def on_train_epoch_end(self, trainer, module) -> None:
            self.ends.append(time.perf_counter())

    scvi.settings.seed = seed
    torch.set_num_threads(2)
    adata = load(name)
    train_rows, held_out_rows = split(adata.n_obs, seed)
    scvi.model.SCVI.setup_anndata(adata, batch_key=BATCH_KEY.get(name))
    model = scvi.model.SCVI(adata, gene_likelihood="nb")
    clock = Clock()
    settings: dict = {
        "accelerator": "cpu",
        "callbacks": [clock],
        "datasplitter_kwargs": {"external_indexing": [train_rows, held_out_rows, np.array([], dtype=int)]},
        "enable_progress_bar": False,
    }
    if recipe == "tuned":
        settings |= {
            "batch_size": 512,
            "max_epochs": 400,
            "early_stopping": True,
            "early_stopping_monitor": "elbo_validation",
            "early_stopping_patience": 20,
            "check_val_every_n_epoch": 1,
            "plan_kwargs": {
                "lr": 4e-3,
                "n_epochs_kl_warmup": 20,
                "reduce_lr_on_plateau": True,
                "lr_patience": 8,
                "lr_scheduler_metric": "elbo_validation",
            },
        }
    if max_epochs is not None:
        settings["max_epochs"] = max_epochs
    begin, cpu = time.perf_counter(), time.process_time()
    model.train(**settings)
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu

    facts = {"data": name, "recipe": recipe, "seed": seed, "wall_s": wall, "cpu_s": cpu, "epochs": len(clock.ends) - 1}
    if out is None:
        print(json.dumps(facts | {"epoch_seconds": np.diff(clock.ends).tolist()}))
        return
    out.mkdir(parents=True, exist_ok=True)
    model.save(out, overwrite=True)
    np.savez(out / "arrays.npz", latent=model.get_latent_representation(), ends=np.array(clock.ends) - clock.ends[0])
    history = {key: np.ravel(table.to_numpy()).astype(float).tolist() for key, table in model.history.items()}
    (out / "facts.json").write_text(json.dumps(facts | {"history": history}))
    print(json.dumps(facts))


if __name__ == "__main__":
    folder = Path(sys.argv[4]) if sys.argv[4] else None
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), folder, int(sys.argv[5]) if len(sys.argv) > 5 else None)
