"""The sections of the report, in the order of the page.

Each is a function from a run to a section, or None when the run has nothing for it.
"""

from collections.abc import Callable

from lucidcell.report.blocks import Section
from lucidcell.report.folder import Run
from lucidcell.report.sections.annotation import annotation
from lucidcell.report.sections.data import data
from lucidcell.report.sections.factors import factors
from lucidcell.report.sections.genes import genes
from lucidcell.report.sections.integration import integration
from lucidcell.report.sections.map_of_cells import map_of_cells
from lucidcell.report.sections.markers import markers
from lucidcell.report.sections.reconstruction import reconstruction
from lucidcell.report.sections.repeat import repeat
from lucidcell.report.sections.settings import settings
from lucidcell.report.sections.topics import topics
from lucidcell.report.sections.training import training

SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    data,
    training,
    map_of_cells,
    annotation,
    markers,
    integration,
    topics,
    factors,
    genes,
    reconstruction,
    settings,
    repeat,
)
