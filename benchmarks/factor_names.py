"""Factors of blood cells with share, stability and name; do they separate the types that everyone knows?

    python benchmarks/factor_names.py                      # pbmc3k and kang_pbmc_12k; writes factor_names.csv

LDVAE by its defaults (10 factors, donors as batches), on the 2,000 most variable genes of pbmc3k and all 1,287 of
kang_pbmc_12k; varimax. Names: GSEA with Hallmark, canonical pathways and C8 of MSigDB. Stability: two further seeds.
For monocytes, B cells, NK cells and platelets: the factor with the AUROC farthest from 1/2, and which of the type's
textbook markers are among its 20 top genes at that end (by loading times the root of the mean count). The markers were
written down before the models were looked at.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from peer_scvi_tools import BATCH_KEY, load

import lucidcell as lc

HERE = Path(__file__).parent
GENE_SETS = HERE.parents[1] / "shared" / "data" / "gene_sets"
FILES = ["human_hallmark_v2025.gmt", "c2.cp.v2024.1.Hs.symbols.gmt", "c8.all.v7.5.1.symbols.gmt"]
MARKERS = {
    "monocytes": "CD14 LYZ S100A8 S100A9 S100A12 FCN1 CST3 VCAN LGALS2 TYROBP MS4A7 FCGR3A",
    "B": "CD79A CD79B MS4A1 CD19 CD74 HLA-DRA TCL1A IGHM BANK1 CD37",
    "NK": "NKG7 GNLY GZMB GZMA KLRD1 PRF1 FGFBP2 SPON2 CST7 KLRF1 NCAM1 FCGR3A",
    "platelets": "PPBP PF4 GNG11 SDPR TUBB1 ITGA2B GP9 SPARC CLU ACRBP NRGN HIST1H2AC",
}
TYPES = {
    "pbmc3k": {"monocytes": ["CD14+ Mono"], "B": ["B"], "NK": ["NK"], "platelets": ["Platelet"]},
    "kang_pbmc_12k": {
        "monocytes": ["CD14+ Monocytes"], "B": ["B cells"], "NK": ["NK cells"], "platelets": ["Megakaryocytes"],
    },
}  # fmt: skip


def main() -> None:
    found = []
    for name, types in TYPES.items():
        adata = load(name)
        if adata.n_vars > 2000:
            adata = lc.select_genes(adata, n_top_genes=2000)
        keys = {"batch_key": BATCH_KEY.get(name)}
        model = lc.LDVAE(adata, **keys)
        model.train(progress=False)
        loadings = model.get_loadings(rotate="varimax", center=True)
        signal = lc.gene_signal(loadings, model.mean_counts())
        scores = pd.DataFrame(model.get_latent_representation(rotate="varimax"), columns=loadings.columns)
        shares = model.get_factor_shares(rotate="varimax").set_index("factor")["share"]
        again = lc.stability(lc.LDVAE, adata, seeds=[1, 2], reference=model, **keys)
        agreement = again.factors.set_index("factor")["agreement"]
        enrichment = lc.gsea(signal, [GENE_SETS / file for file in FILES])
        names = lc.name_factors(signal, enrichment)
        names = names.assign(data=name, share=names["factor"].map(shares), stability=names["factor"].map(agreement))
        found.append(names[["data", "factor", "sign", "share", "stability", "name", "nes", "q_value"]])
        print(found[-1].round(3).to_string(index=False))
        print(f"subspace agreement {again.subspace.mean():.3f}")
        labels = adata.obs["cell_type"].astype(str)
        for known, members in types.items():
            obs = pd.DataFrame({"is": np.where(labels.isin(members), "yes", "no")})
            table = lc.factor_association(scores, obs, "is")
            table = table[table["category"] == "yes"]
            best = table.iloc[(table["effect"] - 0.5).abs().argmax()]
            end = "positive" if best["effect"] > 0.5 else "negative"
            top = set(lc.top_genes(signal[[best["factor"]]], 20, sign=end)["gene"])
            markers = MARKERS[known].split()
            there = [gene for gene in markers if gene in adata.var_names]
            print(
                f"{name}, {known}: {best['factor']} {end}, AUROC {max(best['effect'], 1 - best['effect']):.3f}, "
                f"{len(top & set(markers))} of {len(there)} markers there: {', '.join(sorted(top & set(markers)))}"
            )
    pd.concat(found).to_csv(HERE / "factor_names.csv", index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
