# %% [markdown]
# # From marker genes to labels that say how sure they are: SCANVI on blood cells
#
# The data come with the package: 2,638 blood cells of one donor, with a published annotation of nine types. Nothing is
# downloaded. First the annotation stays hidden: a few cells are named by marker genes, and the model labels the others.
# Then half of the cells keeps its labels and the other half plays a new experiment, with one type that no label names.
#
# Training here is short, so that the page runs quickly. `model.train()` without a number trains longer and fits
# better; use it for real work. docs/annotation.md explains every step, and how far to trust it.

# %%
import numpy as np

import lucidcell as lc
from lucidcell import metrics, plots

adata = lc.pbmc3k()
published = adata.obs["cell_type"]
print(published.value_counts())

# %% [markdown]
# ## Seeds: the cells that marker genes are sure of
#
# A signature lists genes that a type has, and genes that it does not have. Best do this before genes are selected: of
# these 2,000 variable genes, markers as common as CD8A and MS4A1 are missing. Types that are rare get fewer seeds.

# %%
signatures = {
    "B": ["CD79A", "CD79B"],
    "CD14+ Mono": {"positive": ["S100A8", "S100A9", "LYZ"], "negative": ["FCGR3A"]},
    "FCGR3A+ Mono": {"positive": ["FCGR3A", "LST1"], "negative": ["NKG7"]},
    "NK": ["GNLY", "GZMB", "PRF1"],
    "CD8 T": {"positive": ["GZMK", "CCL5"], "negative": ["GNLY", "PPBP"]},
    "Memory CD4 T": {"positive": ["LTB", "AQP3", "S100A4"], "negative": ["NKG7", "CCL5", "LYZ", "CD79A"]},
    "Naive CD4 T": {"positive": ["MAL", "SELL"], "negative": ["S100A4", "NKG7", "CCL5", "LYZ", "CD79A"]},
    "DC": ["FCER1A", "CLEC10A", "CST3"],
    "Platelet": ["PPBP", "PF4"],
}
top = dict.fromkeys(signatures, 50) | {"DC": 15, "Platelet": 7}
adata.obs["seed"] = lc.seed_labels(adata, signatures, top=top)
seeds = adata.obs["seed"] != "Unknown"
seed_precision = float((adata.obs["seed"] == published.astype(str))[seeds].mean())
print(adata.obs["seed"].value_counts())
print(f"{seed_precision:.0%} of the {seeds.sum()} seeds have the published type")

# %% [markdown]
# ## Label the other cells
#
# "Unknown" is no type: the model never sees such cells' labels. It learns where the types lie from the seeds, and how
# cells differ from all cells.

# %%
model = lc.SCANVI(adata, labels_key="seed", unlabeled_category="Unknown")
model.train(max_epochs=15, progress=False)
predicted = model.predict()
others = ~seeds.to_numpy()
accuracy = metrics.accuracy(published[others], predicted[others])
print(f"{accuracy:.0%} of the {others.sum()} other cells get their published type")

# %% [markdown]
# Do the probabilities mean what they say? With labels this few, all of them train. So the question goes to five more
# classifiers, each of which has not seen a fifth of them. One temperature then corrects all probabilities. It would be
# declined in a sentence, `model.calibration.declined`, if there were fewer than 50 labels.

# %%
found = model.calibration
print(f"temperature {found.temperature:.2f} from {found.n_cells} {found.labels}")
print(f"calibration error {found.error_before:.3f} before and {found.error_after:.3f} after")

# %% [markdown]
# `annotate` says how sure the model is of each cell. Cells below a threshold can be rejected: fewer are named, and more
# of them are right.

# %%
print(model.annotate().head())
named_share, named_accuracy = {}, {}
for threshold in (0.0, 0.7, 0.9):
    names = model.predict(threshold=threshold, unknown="not sure")
    named = (names != "not sure").to_numpy() & others
    named_share[threshold] = named.sum() / others.sum()
    named_accuracy[threshold] = float((names == published.astype(str))[named].mean())
    print(
        f"threshold {threshold}: {named_share[threshold]:.0%} are named, {named_accuracy[threshold]:.0%} of them right"
    )

confusion = metrics.confusion_table(published[others], predicted[others])
plots.confusion_matrix(confusion).figure.savefig("confusion.png", dpi=150)

# %% [markdown]
# ## From one experiment to another
#
# Now cells of lane 1 have labels, at two levels, and those of lane 2 have none. B cells are taken out of lane 1, so
# that no label names them.

# %%
rng = np.random.default_rng(0)
lane = rng.choice(["lane 1", "lane 2"], adata.n_obs)
adata.obs["lane"] = lane
both = adata[~((lane == "lane 1") & (published == "B"))].copy()
known = (both.obs["lane"] == "lane 1").to_numpy()
for level in ("cell_type_coarse", "cell_type"):
    both.obs[f"known_{level}"] = np.where(known, both.obs[level].astype(str), "Unknown")

transfer = lc.SCANVI(
    both, batch_key="lane", labels_key=["known_cell_type_coarse", "known_cell_type"], unlabeled_category="Unknown"
)
transfer.train(max_epochs=15, progress=False)

# %% [markdown]
# A tenth of the cells was held out of training. Their labels tell how far confidence and accuracy agree; a temperature
# corrects it where that helps. `error_before` and `error_after` are expected calibration errors.

# %%
found = transfer.calibration
print(f"temperature {found.temperature:.2f} from {found.n_cells} {found.labels}")
print(f"calibration error {found.error_before:.3f} before and {found.error_after:.3f} after")
plots.calibration_curve(found.reliability)[0].figure.savefig("calibration.png", dpi=150)

# %% [markdown]
# Predictions agree across levels. With a threshold, a cell whose finest type is not sure gets the coarser one that is.

# %%
new = ~known & (both.obs["cell_type"] != "B").to_numpy()
coarse = transfer.predict(level="known_cell_type_coarse")
coarse_accuracy = metrics.accuracy(both.obs["cell_type_coarse"][new], coarse[new])
fine_accuracy = metrics.accuracy(both.obs["cell_type"][new], transfer.predict()[new])
print(f"lane 2 without B cells: {coarse_accuracy:.0%} right at the coarse level, {fine_accuracy:.0%} at the fine one")
print(transfer.predict(threshold=0.9)[new].value_counts())

# %% [markdown]
# ## The type that no label names
#
# A classifier has to call B cells something. But they mix with no labelled cell, and that can be seen.

# %%
print(transfer.find_new_types().head(3))
mixing = transfer.find_new_types(clusters=both.obs["cell_type"])  # or adata.obs["leiden"], or any other clusters
print(mixing)

# %% [markdown]
# ## Keep the results
#
# `write` puts the predictions into `obs`; `model.save` and `lc.report` make a page with all of the above.

# %%
transfer.write(both)
print(both.obs[["scanvi_prediction", "scanvi_confidence"]].head())
