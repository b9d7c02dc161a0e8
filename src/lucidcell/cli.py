"""The command line: each command is one call of the public API."""

from __future__ import annotations

import logging
import shlex
import shutil
import sys
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucidcell import __version__
from lucidcell.errors import FileError, LucidcellError, SettingError

if TYPE_CHECKING:
    from anndata import AnnData

app = typer.Typer(
    help="Readable deep generative models of single-cell RNA-seq.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
CHECKPOINT = "checkpoint"  # folder in a run folder, while it trains
MODELS = {"scvi": "SCVI", "scanvi": "SCANVI", "ldvae": "LDVAE"}

DataPath = Annotated[Path, typer.Argument(help="Counts: .h5ad, .zarr, 10x .h5, or a 10x folder with matrix.mtx.")]
RunFolder = Annotated[Path, typer.Argument(help="Run folder that `lucidcell fit` wrote.")]
Out = Annotated[Path, typer.Option(help="Folder to write.")]
Layer = Annotated[str | None, typer.Option(help="Layer with the counts; X by default.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Overwrite = Annotated[bool, typer.Option(help="Replace what is in the folder.")]


def read(path: Path) -> AnnData:
    """Data in any of the formats that lucidcell reads, by the name of the file."""
    import lucidcell as lc

    if path.suffix == ".h5ad":
        return lc.read_h5ad(path)
    if path.suffix == ".zarr":
        return lc.read_zarr(path)
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
    n_top_genes: Annotated[int | None, typer.Option(help="Keep the most variable genes only.")] = None,
    n_latent: Annotated[int | None, typer.Option(help="Number of factors; 10 by default.")] = None,
    n_hidden: Annotated[int | None, typer.Option(help="Width of the networks; 128 by default.")] = None,
    n_layers: Annotated[int | None, typer.Option(help="Depth of the networks; by default the model's.")] = None,
    gene_likelihood: Annotated[str | None, typer.Option(help="nb, zinb or poisson; nb by default.")] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Passes over the data; by default from its size.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Cells per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    early_stopping: Annotated[bool, typer.Option(help="Stop when the held-out ELBO no longer improves.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    num_threads: Annotated[int | None, typer.Option(help="CPU threads; all cores by default.")] = None,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    seed: Seed = 0,
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
    adata = read(data)
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
    }
    _train_and_report(
        _build(model, adata, {name: value for name, value in options.items() if value is not None}),
        out,
        max_epochs=max_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        early_stopping=early_stopping,
        device=device,
        num_threads=num_threads,
        precision=precision,
        seed=seed,
        resume=resume,
    )


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


def _train_and_report(model: Any, out: Path, **training: Any) -> None:
    import lucidcell as lc

    model.command = shlex.join(["lucidcell", *sys.argv[1:]])
    typer.echo(str(model.cells))
    model.train(checkpoint_dir=out / CHECKPOINT, **training)
    model.save(out, overwrite=True)
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
    embedding: Annotated[list[str], typer.Option(help="Key of obsm; may be repeated.")],
    metrics: Annotated[str, typer.Option(help="integration, annotation or clustering.")] = "integration",
    batch_key: Annotated[str | None, typer.Option(help="Column of obs: batch, donor, technology.")] = None,
    labels_key: Annotated[str | None, typer.Option(help="Column of obs: cell type.")] = None,
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
    table = lc.evaluate(read(data), embedding, metrics=metrics, batch_key=batch_key, labels_key=labels_key, seed=seed)
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
def demo(out: Out = Path("runs/demo"), seed: Seed = 0) -> None:
    """Train SCVI on 2,638 blood cells (10x Genomics, shipped with the package) and write its report."""
    import lucidcell as lc

    _train_and_report(lc.SCVI(lc.pbmc3k(), labels_key="cell_type"), out, seed=seed)


def main() -> None:
    """Run the command line; errors that lucidcell raises on purpose become one line and exit status 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        app()
    except LucidcellError as error:
        typer.echo(f"lucidcell: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
