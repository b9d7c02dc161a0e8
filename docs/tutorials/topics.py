# %% [markdown]
# # Topics: what cells are made of, and how readable it is
#
# The data come with the package: 2,638 blood cells of one donor. scE2TM describes each cell as a mixture of topics,
# each topic as a list of genes, and keeps the topics apart. Genes, topics and training are few here, so that the page
# runs quickly: for real work leave out `n_topics` and `max_epochs`. docs/sce2tm.md has the equations and choices.

# %%
import numpy as np
import pandas as pd

import lucidcell as lc
from lucidcell import metrics, plots

adata = lc.select_genes(lc.pbmc3k(), n_top_genes=500)
types = adata.obs["cell_type"].astype(str)

# %% [markdown]
# ## Training
#
# A second view helps where there is one: any embedding of the cells in obsm, such as that of a foundation model, by
# `external_key`. Here there is none.

# %%
model = lc.SCE2TM(adata, n_topics=15)
model.train(max_epochs=50, progress=False)
shares = model.get_topics()  # cells x topics, rows sum to 1
genes = model.get_topic_genes()  # genes x topics
top = metrics.best_genes(genes)
print(shares.iloc[:3].round(2))

# %% [markdown]
# ## What are the types of cells made of?

# %%
means = shares.groupby(types.to_numpy()).mean()
own = (means - shares.mean()).idxmax(axis=1)  # the topic that a type has more of than others
for cell_type, topic in own.items():
    print(f"{cell_type:14} {topic:4} {', '.join(top[topic][:6])}")
plots.composition(shares, types).figure.savefig("composition.png", dpi=150)

# %% [markdown]
# ## How readable are the topics?
#
# Coherence: do the best genes of a topic occur in the same gene sets? Diversity: do topics differ? Purity: does the
# largest topic of a cell tell its type? Without the transport term topics move onto the same genes: most of all with
# many topics, and longer training than here. Fifty gene sets are few for coherence; take canonical pathways.

# %%
collapsed = lc.SCE2TM(adata, n_topics=15, ecr_weight=0.0)
collapsed.train(max_epochs=50, progress=False)
rows = {}
for name, one in {"scE2TM": model, "without transport": collapsed}.items():
    for ranking in ("signal", "published"):
        found = metrics.interpretability(
            one.get_topics(), one.get_topic_genes(ranking=ranking), labels=types, gene_sets=lc.hallmark(),
            n_permutations=0,
        )  # fmt: skip
        rows[name, ranking] = found.summary
measures = pd.DataFrame(rows).T
print(measures[["TC", "TD", "TQ", "IP", "used_topics"]].round(2))
plots.gene_frequency(top).figure.savefig("gene_frequency.png", dpi=150)

# %% [markdown]
# ## Which gene sets do topics stand for?

# %%
terms = lc.gsea(genes[own.unique()], lc.hallmark(), n_permutations=200)
risen = terms[(terms["q_value"] < 0.05) & (terms["nes"] > 0)]
print(risen.groupby("factor").head(2)[["factor", "term", "nes", "q_value"]])
plots.manhattan(terms).figure.savefig("manhattan.png", dpi=150)

# %% [markdown]
# ## What would cells be without a topic?
#
# The other topics take over, in proportion: log2 fold changes of expression, cell by cell.

# %%
without = model.perturb_topics(own["B"])
change = without[(types == "B").to_numpy()].mean()
seen = change[np.asarray(adata.X.mean(0)).ravel() > 0.1]
print(seen.nsmallest(5).round(2))

# %% [markdown]
# ## Keeping it

# %%
model.write(adata)  # obsm["X_sce2tm"], varm["sce2tm_loadings"], uns["sce2tm"]
model.save("runs/topics", overwrite=True)  # with tables/topics.csv and tables/topic_genes.csv
lc.report("runs/topics")
