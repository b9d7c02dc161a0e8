"""The command line: each command is one call of the public API."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucidcell import __version__
from lucidcell.errors import DataError, FileError, LucidcellError, SettingError

if TYPE_CHECKING:
    from anndata import AnnData

app = typer.Typer(
    help="Readable deep generative models of single-cell RNA-seq.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
IS_FIRST = "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK") == "0"  # of the processes of torchrun
CHECKPOINT = "checkpoint"  # folder in a run folder, while it trains
MODELS = {name.lower(): name for name in ("SCVI", "SCANVI", "LDVAE", "SIVAE", "SCE2TM", "SCETM", "VAE")}

DataPath = Annotated[Path, typer.Argument(help="Counts: .h5ad, .zarr, 10x .h5, or a 10x folder with matrix.mtx.")]
RunFolder = Annotated[Path, typer.Argument(help="Run folder that `lucidcell fit` wrote.")]
Out = Annotated[Path, typer.Option(help="Folder to write.")]
Layer = Annotated[str | None, typer.Option(help="Layer with the counts; X by default.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Overwrite = Annotated[bool, typer.Option(help="Replace what is in the folder.")]


def read(path: Path, *, backed: bool = False) -> AnnData:
    """Data in any of the formats that lucidcell reads, by the name of the file; `backed` leaves counts in the file."""
    import lucidcell as lc

    if path.suffix == ".h5ad":
        return lc.read_h5ad(path, backed="r" if backed else None)
    if path.suffix == ".zarr":
        return lc.read_zarr(path, backed="r" if backed else None)
    if backed:
        raise FileError(f"--backed reads .h5ad and .zarr piece by piece, and {path} is neither: convert it first.")
    if path.suffix == ".h5" or path.is_dir():
        return lc.read_10x(path)
    if not path.exists():
        raise FileError(f"{path} does not exist.")
    raise FileError(f"{path} is of an unknown kind; lucidcell reads .h5ad, .zarr, 10x .h5 and 10x folders.")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lucidcell {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that stand before the command."""


@app.command()
def fit(
    data: DataPath,
    out: Out,
    model: Annotated[str, typer.Option(help=f"One of: {', '.join(MODELS)}.")] = "scvi",
    layer: Layer = None,
    batch_key: Annotated[str | None, typer.Option(help="Column of obs: batch, donor, technology.")] = None,
    labels_key: Annotated[
        list[str] | None, typer.Option(help="Column of obs: cell type; may be repeated, from coarse to fine.")
    ] = None,
    unlabeled_category: Annotated[str | None, typer.Option(help="What cells without a label are called there.")] = None,
    taxonomy: Annotated[
        Path | None, typer.Option(help="CSV with the columns child and parent, over the labels.")
    ] = None,
    categorical_covariate: Annotated[list[str] | None, typer.Option(help="Column of obs; may be repeated.")] = None,
    continuous_covariate: Annotated[list[str] | None, typer.Option(help="Column of obs; may be repeated.")] = None,
    size_factor_key: Annotated[str | None, typer.Option(help="Column of obs.")] = None,
    backed: Annotated[
        bool, typer.Option(help="Leave the counts in the file, and read them while training: for very many cells.")
    ] = False,
    buffer_gb: Annotated[float, typer.Option(help="With --backed: memory for counts, in GiB.")] = 0.5,
    n_top_genes: Annotated[int | None, typer.Option(help="Keep the most variable genes only.")] = None,
    n_latent: Annotated[int | None, typer.Option(help="Number of factors; 10 by default.")] = None,
    n_hidden: Annotated[int | None, typer.Option(help="Width of the networks; by default the model's.")] = None,
    n_layers: Annotated[int | None, typer.Option(help="Depth of the networks; by default the model's.")] = None,
    gene_likelihood: Annotated[
        str | None, typer.Option(help="nb, zinb or poisson; for sivae and vae gaussian or nb.")
    ] = None,
    latent_distribution: Annotated[str | None, typer.Option(help="normal, or ln for factors on a simplex.")] = None,
    gamma: Annotated[
        float | None, typer.Option(help="Weight of siVAE's interpretability term; 0.05 by default.")
    ] = None,
    linear_decoder: Annotated[bool | None, typer.Option(help="For sivae and vae: one linear layer as decoder.")] = None,
    n_topics: Annotated[int | None, typer.Option(help="For sce2tm and scetm; 100 and 50 by default.")] = None,
    external_key: Annotated[
        str | None, typer.Option(help="For sce2tm: key of obsm with an embedding made elsewhere, a second view.")
    ] = None,
    ecr_weight: Annotated[float | None, typer.Option(help="For sce2tm: weight of what keeps topics apart.")] = None,
    stability_seeds: Annotated[int, typer.Option(help="Fit as many other seeds, and say which factors come back.")] = 0,
    max_epochs: Annotated[int | None, typer.Option(help="Passes over the data; by default from its size.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Cells per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    early_stopping: Annotated[bool, typer.Option(help="Stop when the held-out ELBO no longer improves.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    num_threads: Annotated[int | None, typer.Option(help="CPU threads; all cores by default.")] = None,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    seed: Seed = 0,
    estimate: Annotated[bool, typer.Option(help="Say what time, memory and disk it will take, and stop.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint of a run that was cut off.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a model and write a run folder with its report."""
    import lucidcell as lc

    if model not in MODELS:
        raise SettingError(f"--model is {model!r}; it must be one of {', '.join(MODELS)}.")
    unfinished = resume and (out / CHECKPOINT).exists()
    if (out / "model.json").exists() and not (overwrite or unfinished):
        raise FileError(f"{out} already holds a model; choose another --out, or pass --overwrite.")
    adata = read(data, backed=backed)
    if n_top_genes is not None:
        adata = lc.select_genes(adata, n_top_genes=n_top_genes, layer=layer, batch_key=batch_key)
    options = {
        "layer": layer,
        "batch_key": batch_key,
        "labels_key": labels_key[0] if labels_key is not None and len(labels_key) == 1 else labels_key,
        "unlabeled_category": unlabeled_category,
        "taxonomy": taxonomy,
        "categorical_covariate_keys": categorical_covariate,
        "continuous_covariate_keys": continuous_covariate,
        "size_factor_key": size_factor_key,
        "n_latent": n_latent,
        "n_hidden": n_hidden,
        "n_layers": n_layers,
        "gene_likelihood": gene_likelihood,
        "latent_distribution": latent_distribution,
        "gamma": gamma,
        "linear_decoder": linear_decoder,
        "n_topics": n_topics,
        "external_key": external_key,
        "ecr_weight": ecr_weight,
    }
    if stability_seeds < 0:
        raise SettingError(f"--stability-seeds is {stability_seeds}; it must be 0 or more.")
    given = {name: value for name, value in options.items() if value is not None}
    training = {
        "max_epochs": max_epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "early_stopping": early_stopping,
        "device": device,
        "num_threads": num_threads,
        "precision": precision,
        "seed": seed,
        "buffer_gb": buffer_gb,
    }
    built = _build(model, adata, given)
    if estimate:
        found = built.estimate_training(**training)
        if IS_FIRST:
            typer.echo(f"{built.cells}\n{found}")
        return
    refits = None if not stability_seeds else partial(_stability, adata, stability_seeds, given)
    _train_and_report(built, out, refits=refits, resume=resume, **training)


def _build(model: str, adata: AnnData, given: dict[str, Any]) -> Any:
    """The model with the options that were given; the others are its own defaults."""
    import lucidcell as lc

    model_class = getattr(lc, MODELS[model])
    known = signature(model_class.__init__).parameters
    for name in given:
        if name not in known:
            option = "--" + name.removesuffix("_keys").replace("_", "-")
            raise SettingError(f"{option} has no meaning for --model {model}: leave it out, or choose another model.")
    return model_class(adata, **given)


def _stability(
    adata: AnnData, n_seeds: int, given: dict[str, Any], model: Any, out: Path, training: dict[str, Any]
) -> Any:
    """Agreement of the model's factors with fits of `n_seeds` other seeds, trained alike; kept in case of a kill."""
    import lucidcell as lc

    names = ("max_epochs", "batch_size", "learning_rate", "early_stopping", "precision", "device", "buffer_gb")
    seeds = [seed for seed in range(n_seeds + 1) if seed != training["seed"]][:n_seeds]
    found = lc.stability(
        type(model), adata, seeds=seeds, reference=model, training={name: training[name] for name in names},
        n_jobs=training["num_threads"] or -1, folder=out / CHECKPOINT / "fits", **given,
    )  # fmt: skip
    return found.factors.assign(subspace=found.subspace.mean())


def _train_and_report(model: Any, out: Path, refits: Callable[..., Any] | None = None, **training: Any) -> None:
    import lucidcell as lc

    model.command = shlex.join(["lucidcell", *sys.argv[1:]])
    if IS_FIRST:
        typer.echo(str(model.cells))
    model.train(checkpoint_dir=out / CHECKPOINT, **training)
    if not IS_FIRST:
        return
    model.save(out, overwrite=True)
    if refits is not None:
        refits(model, out, training).to_csv(out / "tables" / "stability.csv", index=False)
    shutil.rmtree(out / CHECKPOINT, ignore_errors=True)  # of a run that is finished
    page = lc.report(out)
    facts = model.training_facts
    typer.echo(f"{facts['epochs']} epochs in {facts['seconds']:.1f} s ({facts['cells_per_second']:,.0f} cells/s)")
    typer.echo(f"report: {page}")


@app.command()
def report(run: RunFolder, title: Annotated[str | None, typer.Option(help="Title of the page.")] = None) -> None:
    """Write the HTML report of a run folder."""
    import lucidcell as lc

    typer.echo(f"report: {lc.report(run, title=title)}")


@app.command()
def enrich(
    target: Annotated[Path, typer.Argument(help="Run folder, or AnnData with loadings in varm (.h5ad, .zarr).")],
    gene_sets: Annotated[
        list[Path] | None, typer.Option(help="GMT file; may be repeated. By default the 50 human Hallmark sets.")
    ] = None,
    varm_key: Annotated[str | None, typer.Option(help="Key of varm with genes x factors, for an AnnData.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; for a run folder its own tables.")] = None,
    min_size: Annotated[int, typer.Option(help="Fewest genes of a set among those of the model.")] = 5,
    max_size: Annotated[int, typer.Option(help="Most genes of a set among those of the model.")] = 500,
    n_permutations: Annotated[int, typer.Option(help="Random sets of each size.")] = 1000,
    max_q: Annotated[float, typer.Option(help="Largest q-value of a set that gives a factor its name.")] = 0.05,
    seed: Seed = 0,
) -> None:
    """Find the gene sets of every factor, name the factors, and write the report of a run anew."""
    import lucidcell as lc
    from lucidcell.readouts.enrichment import table_of
    from lucidcell.readouts.factor_names import check_max_q
    from lucidcell.report.folder import Run

    check_max_q(max_q)
    is_run = (target / "model.json").exists()
    if is_run and varm_key is not None:
        raise SettingError("--varm-key is for an AnnData, and the loadings of a run are in its folder: leave it out.")
    if not is_run and (varm_key is None or out is None):
        raise SettingError(f"{target} is no run folder; for an AnnData pass --varm-key and --out.")
    if out is not None and not out.is_dir():
        raise FileError(f"{out} cannot be written to: there is no such folder.")
    if is_run:
        run = Run(target)
        if run.signal is None:
            raise FileError(f"{target} holds no loadings: its model was not trained, or saved without its data.")
        ranked = run.signal
    else:
        ranked = table_of(read(target), varm_key)
    found = lc.gsea(
        ranked, lc.hallmark() if gene_sets is None else gene_sets, min_size=min_size, max_size=max_size,
        n_permutations=n_permutations, seed=seed,
    )  # fmt: skip
    names = lc.name_factors(ranked, found, max_q=max_q)
    folder = target / "tables" if out is None else out
    found.to_csv(folder / "enrichment.csv", index=False)
    names.to_csv(folder / "factor_names.csv", index=False)
    for row in names.to_dict("records"):
        typer.echo(f"{row['factor']} {row['sign']}  {row['name']}")
    if is_run:
        typer.echo(f"report: {lc.report(target)}")


@app.command("map")
def map_command(
    run: RunFolder,
    data: DataPath,
    out: Out,
    max_epochs: Annotated[int, typer.Option(help="Passes over the query, if it has new batches.")] = 30,
    min_overlap: Annotated[float, typer.Option(help="Fraction of the model's genes that the query must have.")] = 0.5,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Put new cells into the latent space of a trained model, and write a run folder for them."""
    import lucidcell as lc

    if (out / "model.json").exists() and not overwrite:
        raise FileError(f"{out} already holds a model; choose another --out, or pass --overwrite.")
    query = lc.load(run).map_query(read(data), max_epochs=max_epochs, min_overlap=min_overlap, seed=seed)
    query.command = shlex.join(["lucidcell", *sys.argv[1:]])
    query.save(out, overwrite=True)
    typer.echo(f"report: {lc.report(out)}")


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(help="AnnData with embeddings in obsm: .h5ad or .zarr.")],
    embedding: Annotated[
        list[str], typer.Option(help="Key of obsm; for interpretability obsm:varm keys. May be repeated.")
    ],
    metrics: Annotated[
        str, typer.Option(help="integration, annotation, clustering or interpretability.")
    ] = "integration",
    batch_key: Annotated[str | None, typer.Option(help="Column of obs: batch, donor, technology.")] = None,
    labels_key: Annotated[str | None, typer.Option(help="Column of obs: cell type.")] = None,
    gene_sets: Annotated[
        Path | None, typer.Option(help="GMT file for interpretability; by default the 50 Hallmark sets (human).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file to write.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture to write: .png, .svg or .pdf.")] = None,
    seed: Seed = 0,
) -> None:
    """Score embeddings of the same cells, and print the table."""
    import lucidcell as lc

    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise SettingError(f"--plot is {plot}; its name must end in .png, .svg or .pdf.")
    for path in (out, plot):
        if path is not None and not path.parent.is_dir():
            raise FileError(f"{path} cannot be written: the folder {path.parent} does not exist.")
    keys: Any = embedding
    if metrics == "interpretability":
        keys = {one: tuple(one.split(":")) for one in embedding}
    sets = lc.hallmark() if gene_sets is None and metrics == "interpretability" else gene_sets
    table = lc.evaluate(
        read(data), keys, metrics=metrics, batch_key=batch_key, labels_key=labels_key, gene_sets=sets, seed=seed
    )
    typer.echo(table.to_string(float_format=lambda score: f"{score:.3f}"))
    if out is not None:
        table.to_csv(out)
    if plot is not None:
        from lucidcell.plots import evaluation

        figure = evaluation(table).get_figure(root=True)
        assert figure is not None
        figure.savefig(plot, dpi=200)


@app.command("de")
def differential_expression(
    run: RunFolder,
    data: DataPath,
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
    groupby: Annotated[str | None, typer.Option(help="Column of obs with the groups; by default the labels.")] = None,
    group1: Annotated[list[str] | None, typer.Option(help="Group; may be repeated; by default all.")] = None,
    group2: Annotated[str | None, typer.Option(help="What it is compared with; by default all other cells.")] = None,
    mode: Annotated[str, typer.Option(help="change or vanilla.")] = "change",
    delta: Annotated[float, typer.Option(help="Smallest log2 fold change that counts.")] = 0.25,
    fdr: Annotated[float, typer.Option(help="Expected share of wrong genes among those found.")] = 0.05,
    seed: Seed = 0,
) -> None:
    """Find the genes that differ between groups of cells, and write them as a table."""
    import lucidcell as lc

    if not out.parent.is_dir():
        raise FileError(f"{out} cannot be written: the folder {out.parent} does not exist.")
    adata = read(data)
    table = lc.load(run).differential_expression(
        adata, groupby=groupby, group1=group1, group2=group2, mode=mode, delta=delta, fdr=fdr, seed=seed
    )
    table.to_csv(out)
    for name, rows in table.groupby("comparison", sort=False):
        typer.echo(f"{name}: {', '.join(map(str, rows.index[:10]))}")


@app.command()
def populations(
    data: DataPath,
    out: Out,
    by: Annotated[str, typer.Option(help="Column of obs with the populations: donor, cell line.")] = "donor",
    phenotype: Annotated[str | None, typer.Option(help="Column of obs, one value for each population.")] = None,
    bin_size: Annotated[int, typer.Option(help="Cells of every fit.")] = 1000,
    n_bins_max: Annotated[int | None, typer.Option(help="Most bins of a population; all by default.")] = None,
    layer: Layer = None,
    n_top_genes: Annotated[int, typer.Option(help="Most central genes of each bin in the networks.")] = 100,
    quantile: Annotated[float, typer.Option(help="Share of the pairs of genes that are edges.")] = 0.01,
    n_latent: Annotated[int, typer.Option(help="Number of factors.")] = 10,
    n_hidden: Annotated[
        list[int] | None, typer.Option(help="Width of a layer; may be repeated. By default 1024, 512, 128.")
    ] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Passes over the data; by default from its size.")] = None,
    n_jobs: Annotated[int, typer.Option(help="Fits at the same time; -1 for one on every core.")] = 1,
    seed: Seed = 0,
) -> None:
    """Fit a siVAE to bins of every population's cells, and compare their gene networks with a phenotype."""
    import lucidcell as lc
    from lucidcell.plots import population_embedding

    model_arguments = {"n_latent": n_latent} | ({} if n_hidden is None else {"n_hidden": n_hidden})
    networks = lc.population_networks(
        read(data), by=by, phenotype=phenotype, bin_size=bin_size, layer=layer, n_bins_max=n_bins_max,
        n_top_genes=n_top_genes, quantile=quantile, model_arguments=model_arguments,
        training={"max_epochs": max_epochs}, folder=out / "fits", n_jobs=n_jobs, seed=seed,
    )  # fmt: skip
    networks.save(out)
    for name, n_cells in networks.dropped.itertuples(index=False):
        typer.echo(f"left out: {name}, {n_cells} cells")
    figure = population_embedding(networks.embedding, phenotype=networks.phenotype).get_figure(root=True)
    assert figure is not None
    figure.savefig(out / "embedding.png", dpi=200)
    if networks.phenotype is None:
        return
    try:
        genes, apart = networks.associate(), networks.separation()
    except DataError as error:
        typer.echo(f"no test of {phenotype}: {error}")
        return
    genes.to_csv(out / "genes.csv", index=False)
    networks.edges().to_csv(out / "edges.csv", index=False)
    typer.echo(f"separation by {phenotype}: {apart['test']} {apart['statistic']:.3f}, p = {apart['p_value']:.3g}")
    found = genes["gene"][genes["q_value"] <= 0.05]
    typer.echo(f"{len(found)} genes with q <= 0.05{': ' if len(found) else ''}{', '.join(found[:20])}")
    typer.echo(genes.attrs["note"])


@app.command()
def demo(out: Out = Path("runs/demo"), seed: Seed = 0) -> None:
    """Train SCVI on 2,638 blood cells (10x Genomics, shipped with the package) and write its report."""
    import lucidcell as lc

    _train_and_report(lc.SCVI(lc.pbmc3k(), labels_key="cell_type"), out, seed=seed)


def main() -> None:
    """Run the command line; errors that lucidcell raises on purpose become one line and exit status 1."""
    logging.basicConfig(level=logging.WARNING if IS_FIRST else logging.ERROR, format="%(message)s")
    try:
        app()
    except LucidcellError as error:
        typer.echo(f"lucidcell: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
