# %% [markdown]
# # Factors with names: LDVAE on blood cells
#
# The data come with the package: 2,638 blood cells of one donor, of which we take 1,000 genes. A linear decoder
# gives every factor a list of genes with weights. By the end each factor has a share, genes, cell types, gene sets, a
# name, and a number that says whether it would come back.
#
# Training here is short, so that the page runs quickly. `model.train()` without a number trains longer and fits
# better; use it for real work. docs/ldvae.md has the equations, docs/factors.md what every table means.

# %%
import numpy as np
import pandas as pd

import lucidcell as lc
from lucidcell import plots

adata = lc.select_genes(lc.pbmc3k(), n_top_genes=1000)
model = lc.LDVAE(adata, labels_key="cell_type", n_latent=8)
model.train(max_epochs=20, progress=False)
print(model)

# %% [markdown]
# ## Loadings are exact
#
# What the decoder computes is a matrix product: scores times loadings, plus an intercept (and effects of batches and
# covariates, had there been any). Expression is the softmax of it.

# %%
z = model.get_latent_representation().astype(float)
logits = z @ model.get_loadings().to_numpy().T + model.get_intercept().to_numpy()
logits += model.get_batch_effects().to_numpy()[:, 0]  # one batch, one column
expression = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
error = float(np.abs(expression / model.get_normalized_expression().to_numpy() - 1).max())
print(f"largest relative difference from the decoder: {error:.1e}")

# %% [markdown]
# ## Rotate before you read
#
# The model fits as well with its factors turned to any other axes. Varimax turns loadings and scores together, to where
# each factor has few genes with large loadings. `center=True` makes the sign mean up or down.

# %%
loadings = model.get_loadings(rotate="varimax", center=True)
scores = pd.DataFrame(
    model.get_latent_representation(rotate="varimax"), index=adata.obs_names, columns=loadings.columns
)
shares = model.get_factor_shares(rotate="varimax")
print(shares.round(3))

# %% [markdown]
# ## Genes, and the cells they tell apart
#
# Genes are ranked by loading times the root of their mean count: by the loading alone, genes that are hardly ever seen
# would lead. With real donors, pass `donor_key`, and donors become the unit of the tests.

# %%
signal = lc.gene_signal(loadings, model.mean_counts())
for factor, rows in lc.top_genes(signal, 8).groupby("factor", sort=False):
    print(factor, ", ".join(rows["gene"]))

association = lc.factor_association(scores, adata.obs, "cell_type")
strongest = association.assign(strength=(association["effect"] - 0.5).abs()).sort_values("strength", ascending=False)
best = strongest.groupby("category").first()[["factor", "effect"]]
print(best)

# %%
b_factor = best.loc["B", "factor"]
nk_factor = best.loc["NK", "factor"]
ax = plots.factor_pair(scores, signal, b_factor, nk_factor, groups=adata.obs["cell_type"])
ax.figure.savefig("factor_pair.png", dpi=150)
ax = plots.loadings_rank(signal, nk_factor, label="loading × √(mean count)")
ax.figure.savefig("loadings_rank.png", dpi=150)

# %% [markdown]
# ## Gene sets, and names
#
# Preranked GSEA of all factors at once, here with the 50 Hallmark sets that come with the package. With cell-type
# signatures, such as MSigDB's C8, names get closer to biologists' words: pass the GMT files instead.

# %%
found = lc.gsea(signal, lc.hallmark())
names = lc.name_factors(signal, found)
print(names[["factor", "sign", "name", "nes", "q_value"]].to_string())
ax = plots.enrichment_dots(found, n_terms=1)
ax.figure.savefig("enrichment.png", dpi=150)
top = found.iloc[found["nes"].abs().argmax()]
axes = plots.running_score(signal[top["factor"]], lc.hallmark()[top["term"]], title=f"{top['term']}, {top['factor']}")
axes[0].figure.savefig("running_score.png", dpi=150)

# %% [markdown]
# ## Does it come back?
#
# Two more seeds, and every factor is matched with its nearest. A factor that does not come back belongs to the seed,
# not to the blood. With `n_bootstrap` there are intervals of the loadings too, and `folder=` keeps the fits.

# %%
found_again = lc.stability(
    lc.LDVAE, adata, seeds=[1, 2], reference=model, n_jobs=1, training={"max_epochs": 20}, n_latent=8
)
print(found_again.factors.round(2))
stable = list(found_again.factors["factor"][found_again.factors["agreement"] > 0.9])
print("factors to trust:", ", ".join(stable))
ax = plots.stability_heatmap(found_again.matches)
ax.figure.savefig("stability.png", dpi=150)

# %% [markdown]
# ## And on cells that it has not seen?
#
# Every fold is left out once. Accuracy is of types, by the neighbours of a cell among the factors; `folds=` can also be
# a column, such as the donor.

# %%
unseen = lc.cross_validate(
    lc.LDVAE, adata, folds=3, n_jobs=1, training={"max_epochs": 10}, n_latent=8, labels_key="cell_type"
)
print(unseen.round(3))

# %% [markdown]
# ## Archetypes
#
# With `latent_distribution="ln"` the scores of a cell are positive and sum to 1: it lies between archetypes.

# %%
simplex = lc.LDVAE(adata, n_latent=5, latent_distribution="ln")
simplex.train(max_epochs=20, progress=False)
weights = pd.DataFrame(simplex.get_latent_representation(mc_samples=200), columns=simplex.factor_names)
ax = plots.simplex(weights, groups=adata.obs["cell_type"])
ax.figure.savefig("simplex.png", dpi=150)
archetypes = simplex.get_archetypes()
rise = np.log2(archetypes.div(archetypes.mean(axis=1), axis=0)) * np.sqrt(simplex.mean_counts())[:, None]
print(lc.top_genes(rise, 5)[["factor", "gene"]].groupby("factor")["gene"].agg(", ".join))

# %% [markdown]
# ## Keep the results
#
# What is written is rotated and centred. `lucidcell fit --model ldvae --stability-seeds 4` and `lucidcell enrich` put
# shares, names, gene sets and stability into one page.

# %%
model.write(adata)
print(adata)
model.save("runs/factors", overwrite=True)
print("open", lc.report("runs/factors", title="Blood cells: factors"))
