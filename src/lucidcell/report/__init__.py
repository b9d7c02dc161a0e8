"""The report: a run folder in, one HTML file without network out. It knows neither torch nor the models."""

from lucidcell.report.page import report

__all__ = ["report"]
