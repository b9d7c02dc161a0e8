"""The errors a user can meet. Each message is one sentence with the numbers in it and a way out."""

from __future__ import annotations


class LucidcellError(Exception):
    """Base class of every error raised on purpose by lucidcell."""


class DataError(LucidcellError, ValueError):
    """The data cannot be used as they are: wrong values, names, shapes or annotations."""


class FileError(LucidcellError, OSError):
    """A file is missing, damaged, or not what it claims to be."""


class SettingError(LucidcellError, ValueError):
    """An argument has a value, or a combination of values, that has no meaning."""


class NotTrainedError(LucidcellError, RuntimeError):
    """A read-out was asked of a model that has not been trained."""


class TrainingError(LucidcellError, RuntimeError):
    """Training cannot go on, for instance because the loss is no longer finite."""
