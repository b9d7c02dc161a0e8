# %% [markdown]
# # Genes beside cells: siVAE, attributions and gene networks
#
# The data come with the package: 2,638 blood cells of one donor. siVAE gives genes a place as well as cells, on the
# same factors: a gene that lies far out in some direction is high in the cells that lie far out in that direction.
#
# Genes, networks and training are few and small here, so that the page runs quickly: for real work take 2,000
# genes, and leave out `n_hidden`, `max_epochs` and `learning_rate`. docs/sivae.md has the equations,
# docs/attribution.md and docs/networks.md the read-outs.

# %%
import pandas as pd

import lucidcell as lc
from lucidcell import metrics, plots
from lucidcell.comparators.expression import log_normalize

adata = lc.select_genes(lc.pbmc3k(), n_top_genes=300)
model = lc.SIVAE(adata, n_latent=4, n_hidden=(128, 64), feature_kl_weight="elbo")
model.train(max_epochs=100, learning_rate=5e-3, progress=False)
scores = pd.DataFrame(model.get_latent_representation(), adata.obs_names, model.factor_names)
loadings = model.get_loadings()
print(loadings.loc[["CD79A", "GZMB", "PF4"]].round(2))

# %%
x, y = scores.var().nlargest(2).index  # the factors that cells use most
left, right = plots.cells_and_genes(scores, loadings, x, y, groups=adata.obs["cell_type"])
left.figure.savefig("cells_and_genes.png", dpi=150)

# %% [markdown]
# In what direction do B cells lie from the middle, and which genes lie out there?

# %%
directions = scores.groupby(adata.obs["cell_type"], observed=True).mean() - scores.mean()
along = loadings @ directions.T  # genes x types
for cell_type in ("B", "CD14+ Mono", "NK"):
    print(cell_type, ", ".join(along[cell_type].nlargest(6).index))

# %% [markdown]
# ## Are loadings what the network does?
#
# Attributions ask the trained decoder itself: how much does each factor move each gene? Five methods, for every model,
# as one table of genes x factors. Loadings that mean what they say agree with them.

# %%
agreement = {
    method: loadings.corrwith(model.get_attributions(method=method, summary="pca_centred"), method="spearman").abs()
    for method in ("saliency", "gradient_x_input", "deeplift")
}
print(pd.DataFrame(agreement).round(2))

# %% [markdown]
# ## Would the factor move without its genes?
#
# Faithfulness switches a factor's top genes off in the cells and encodes them again. 0 is what random genes of equal
# expression do; 1 is twice as much.

# %%
faithful = lc.faithfulness(model, n_random=9)
print(faithful.round(2))
curves = lc.faithfulness_curves(model, n_random=9)
axes = plots.deletion_curves(curves, x, label="loadings")
axes[0].figure.savefig("deletion.png", dpi=150)

# %% [markdown]
# ## Central genes, neighbours, a network
#
# A gene that many others go with survives the bottleneck: the share of its variance that is explained ranks genes by
# their degree. Central does not mean regulating.

# %%
centrality = model.get_degree_centrality()
ax = plots.centrality_ranking(centrality)
ax.figure.savefig("centrality.png", dpi=150)
neighbors = model.get_gene_neighbors(10)
print("near CD79A:", ", ".join(neighbors.loc[neighbors["gene"] == "CD79A", "neighbor"]))
network = model.get_gene_network(0.05, list(centrality.nlargest(30).index))
ax = plots.network_drawing(network)
ax.figure.savefig("network.png", dpi=150)
lc.write_graphml(network, "network.graphml")

# %% [markdown]
# How good are neighbours? As good as they predict the gene in cells that were not seen; here against the neighbours of
# a network inferred by CLR from the same data.

# %%
values = pd.DataFrame(log_normalize(adata.X, "X").toarray(), adata.obs_names, adata.var_names)
queries = list(centrality.nlargest(50).index)
by_clr = lc.network_neighbors(lc.infer_network(values, "clr"), 10)
explained = {
    name: metrics.neighborhood_prediction(values, near, queries, model="ridge").mean()
    for name, near in {"siVAE": neighbors, "CLR": by_clr}.items()
}
print({name: round(value, 3) for name, value in explained.items()})

# %% [markdown]
# ## Networks of donors
#
# Simulated, so that the answer is known: the 12 genes of one module go together the more tightly, the higher the
# phenotype, at the same mean expression. One small siVAE for each donor, and rank tests over donors.

# %%
donors = lc.simulate_donors(
    8, 200, 48, n_modules=2, module_size=12, effect=1.0, phenotype="continuous", mean_count=5.0, seed=0
)
populations = lc.population_networks(
    donors, phenotype="phenotype", bin_size=200, n_top_genes=20, quantile=0.1, progress=False,
    model_arguments={"n_hidden": (32, 16), "n_latent": 3}, training={"max_epochs": 120, "learning_rate": 5e-3},
)  # fmt: skip
genes = populations.associate()
print(genes.head(8)[["gene", "effect", "q_value", "mean_effect", "mean_q_value"]].round(3).to_string())
print(genes.attrs["note"])
print(populations.separation())
rewired = donors.var["rewired"].loc[genes["gene"]].to_numpy()
print("rewired genes among the first 12:", rewired[:12].sum())
ax = plots.population_embedding(populations.embedding, phenotype=populations.phenotype)
ax.figure.savefig("populations.png", dpi=150)

# %% [markdown]
# ## Keep the results
#
# `lucidcell fit --model sivae` and `lucidcell report` put cells, genes and networks into one page.

# %%
model.write(adata)
model.save("runs/gene_space", overwrite=True)
populations.save("tables")
