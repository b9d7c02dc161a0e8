# %% [markdown]
# # Large data: counts that stay in their file, and many fits
#
# An atlas need not fit into memory. Here 2,638 blood cells stand for it; `IN_MEMORY = 0` makes lucidcell treat so small
# a file like one of many gigabytes, which it would otherwise simply read. docs/scaling.md has what all of this costs.

# %%
import anndata as ad
import joblib
import numpy as np

import lucidcell as lc
from lucidcell.cells import stored

stored.IN_MEMORY = 0  # only for this page
lc.pbmc3k().write_h5ad("cells.h5ad")

# %% [markdown]
# ## Train from the file
#
# `backed="r"` leaves X and the layers where they are (`read_zarr` does the same for zarr, sharded or not). Everything
# after it is as with data in memory. Before a long run, ask what it will take.

# %%
adata = lc.read_h5ad("cells.h5ad", backed="r")
genes = lc.select_genes(adata, n_top_genes=1000)  # a view: nothing is copied
model = lc.SCVI(genes)
in_the_file = not model.cells.in_memory
estimate = model.estimate_training()
print(estimate)
model.train(max_epochs=10, progress=False, checkpoint_dir="run/checkpoint")
print(f"{model.record.cells_per_second:,.0f} cells/s; {model.training_facts['peak_memory_gb']:.1f} GiB at the peak")

# %% [markdown]
# Read-outs are made piece by piece. Those with a row for each cell can go to the disk, too.

# %%
latent = model.get_latent_representation(out="latent.zarr")
print(latent.shape, latent.chunks)

# %% [markdown]
# ## Several files
#
# Each file is a batch, and genes are found by name.

# %%
half = genes.n_obs // 2
for name, rows in {"first": slice(0, half), "second": slice(half, None)}.items():
    adata[rows].to_memory().write_h5ad(f"{name}.h5ad")
files = {name: lc.read_h5ad(f"{name}.h5ad", backed="r") for name in ("first", "second")}
joint = lc.SCVI(files)
joint.train(max_epochs=2, progress=False)
print(joint.schema.batch_categories)

# %% [markdown]
# ## Many fits
#
# What fits a model many times takes `n_jobs`, and goes to a cluster where joblib is told to:
#
#     from distributed import Client
#     Client("scheduler:8786")
#     with joblib.parallel_config("dask"):
#         lc.stability(...)

# %%
memory = ad.read_h5ad("cells.h5ad")[:500].copy()
with joblib.parallel_config("threading"):
    stable = lc.stability(lc.LDVAE, memory, seeds=3, n_latent=4, n_jobs=2, training={"max_epochs": 3}, folder="fits")
print(stable.factors.round(2))
same = np.array_equal(latent[...], model.get_latent_representation())
