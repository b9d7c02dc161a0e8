# %% [markdown]
# # From counts to factors with a name: SCVI on blood cells
#
# The data come with the package: 2,638 blood cells of one donor, 2,000 genes, raw counts. Nothing is downloaded.
# Each cell below ends in something to look at. Run it top to bottom as a script, or cell by cell in an editor that
# knows `# %%`. Figures and files go to the current folder.
#
# Training here is short, so that the page runs quickly. `model.train()` without a number trains longer and fits
# better; use it for real work.

# %%
import numpy as np
import pandas as pd
import scanpy as sc
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

import lucidcell as lc
from lucidcell import plots

# %% [markdown]
# ## Look at the data
#
# `X` holds whole numbers. lucidcell looks at every one of them before it trains, and refuses logarithms, NaN or
# negative values with a sentence.

# %%
adata = lc.pbmc3k()
print(adata)
print(adata.obs["cell_type"].value_counts())

# %% [markdown]
# A third of the cells plays new data, which arrive after the model was trained. All cells are from one experiment. To
# show how batches are handled, each cell gets a lane at random: two for the reference, a third one for the new cells.
# So there is no batch effect here; the calls are the same where there is one.

# %%
rng = np.random.default_rng(0)
is_new = rng.permutation(adata.n_obs) < adata.n_obs // 3
adata.obs["lane"] = np.where(is_new, "lane 3", rng.choice(["lane 1", "lane 2"], adata.n_obs))
reference, new_cells = adata[~is_new].copy(), adata[is_new].copy()

# %% [markdown]
# ## Train
#
# The labels are for display only: the model never sees them (a test permutes them and gets the same model, bit for
# bit). `seed=0` is the default, so that this page gives the same numbers each time it is run on the same machine.

# %%
model = lc.SCVI(reference, batch_key="lane", labels_key="cell_type")
model.train(max_epochs=15, progress=False)
print(model)
print(model.history[["epoch", "train_loss", "validation_negative_elbo", "validation_kl"]].tail(3))

# %% [markdown]
# `validation_negative_elbo` is the number to watch: nats per held-out cell, lower is better, always with the full
# weight of the KL divergence. Both curves should fall and then level off.

# %%
ax = plots.training_curves(model.history, best_epoch=model.training_facts["best_epoch"])
ax.figure.savefig("training.png", dpi=150)

# %% [markdown]
# ## Cells: ten numbers each
#
# The latent representation is the mean of q(z | x). scanpy takes it from here.

# %%
reference.obsm["X_scvi"] = model.get_latent_representation()
sc.pp.neighbors(reference, use_rep="X_scvi", transformer="sklearn", random_state=0)
sc.tl.umap(reference, random_state=0)
ax = plots.embedding(
    reference.obsm["X_umap"], reference.obs["cell_type"], "categorical", names="on", title="Cell types"
)
ax.figure.savefig("cell_types.png", dpi=150)

# %% [markdown]
# ## Factors: which one tells which cell type apart?
#
# Rank all cells by one factor and ask how well the rank tells one cell type from the rest: the area under the ROC
# curve. 0.5 tells nothing; near 1 the type lies at the upper end of the factor, near 0 at the lower end.

# %%
factors = pd.DataFrame(reference.obsm["X_scvi"], index=reference.obs_names, columns=model.factor_names)
cell_types = reference.obs["cell_type"]
separation = pd.DataFrame(
    {name: {t: roc_auc_score(cell_types == t, factors[name]) for t in cell_types.cat.categories} for name in factors}
)
print(separation.round(2))
best_factor = (separation - 0.5).abs().idxmax(axis=1)
print(best_factor)

means = factors.groupby(cell_types, observed=True).mean()
ax = plots.heatmap(means, color_label="mean (latent units)", row_label="cell type", column_label="factor")
ax.figure.savefig("factors_by_type.png", dpi=150)

# %% [markdown]
# ## Loadings: which genes move with a factor?
#
# A loading is the change of a gene's log expression when the factor grows by one, averaged over cells. Genes that are
# hardly ever seen can have large loadings, since no count holds them down. So rank by loading times the square root of
# the mean count, which is how much the gene tells about the factor; the report does the same.
#
# The sign of a factor is arbitrary, so we turn it until "up" means "towards B cells".
#
# Two trainings with different seeds turn the latent space differently, and a cell type may then spread over several
# factors. Read what a factor says about *this* model, and see docs/scvi.md before you compare factors between models.

# %%
loadings = model.get_loadings()
print(loadings.attrs["how"], "-", loadings.attrs["unit"])
mean_counts = np.asarray(reference.X.mean(axis=0)).ravel()
telling = loadings.mul(np.sqrt(mean_counts), axis=0)

b_factor = best_factor["B"]
towards_b = np.sign(separation.loc["B", b_factor] - 0.5)
b_genes = (towards_b * telling[b_factor]).nlargest(10)
print(f"genes that rise with {b_factor} towards B cells:")
print(b_genes.round(3))

ax = plots.loadings_bars(telling.reset_index(), b_factor, label="loading × √(mean count)")
ax.figure.savefig("loadings.png", dpi=150)

# %% [markdown]
# ## Expression without library size and without batch
#
# `get_normalized_expression` gives shares of genes that sum to one in a cell, here per 10,000 counts. With
# `transform_batch` every cell is decoded as if it came from the named batches, and the results are averaged. Without it
# each cell keeps its own batch effect.

# %%
markers = ["CD79A", "NKG7", "LYZ", "PPBP"]  # B cells, NK and CD8 T cells, monocytes, platelets
expression = model.get_normalized_expression(transform_batch=["lane 1", "lane 2"], gene_list=markers, library_size=1e4)
marker_means = expression.groupby(cell_types, observed=True).mean()
print(marker_means.astype(float).round(1))

level = np.log1p(expression["CD79A"])
ax = plots.embedding(reference.obsm["X_umap"], level, "continuous", label="log(1 + counts per 10,000)", title="CD79A")
ax.figure.savefig("cd79a.png", dpi=150)

# %% [markdown]
# ## Does the model describe the data?
#
# Draw counts from the fitted model and compare each gene with what was observed: spread between cells, and share of
# zeros. Points off the line say where the model is wrong.

# %%
check = model.posterior_predictive_check()
off = (check["zero_fraction_expected"] - check["zero_fraction_observed"]).abs()
print(f"share of zeros: mean difference {off.mean():.4f}, largest {off.max():.3f} ({off.idxmax()})")
axes = plots.predictive_check(check)
axes[0].figure.savefig("predictive_check.png", dpi=150)

held_out_elbo = model.get_elbo(indices=model.validation_indices)
print(f"ELBO: {model.get_elbo():.1f} nats per cell, {held_out_elbo:.1f} of the held-out cells alone (higher is better)")

# %% [markdown]
# ## Keep the results
#
# `write` puts the read-outs into your AnnData and touches nothing else. `save` makes a run folder of plain files,
# without pickle. `load` gives the same model back, and `report` draws one HTML page.

# %%
model.write(reference)
print(reference)

model.save("runs/pbmc3k", overwrite=True)
again = lc.load("runs/pbmc3k", reference)
same = np.array_equal(again.get_latent_representation(), model.get_latent_representation())
print("the loaded model gives the same numbers:", same)

print("open", lc.report("runs/pbmc3k", title="Blood cells"))

# %% [markdown]
# ## New cells, and some genes are missing
#
# The new cells come from a lane that the model does not know, and we take away 30 % of their genes. `map_query` aligns
# genes by name, completes the missing ones by what the decoder expects, and leaves the reference as it is.

# %%
kept = np.sort(rng.permutation(new_cells.n_vars)[: round(0.7 * new_cells.n_vars)])
query = new_cells[:, kept].copy()
mapped = model.map_query(query)
print(mapped)

# %% [markdown]
# Reference and query now share one space, so labels can be carried over by neighbours.

# %%
neighbours = KNeighborsClassifier(15).fit(model.get_latent_representation(), reference.obs["cell_type"].astype(str))
transferred = neighbours.predict(mapped.get_latent_representation())
agreement = float((transferred == query.obs["cell_type"].astype(str)).mean())
print(f"{agreement:.1%} of {query.n_obs} new cells get the label of the annotation, with 30 % of their genes missing")
