"""The error of an export: one line that says what is wrong, and how to go on."""

from bnn.errors import BnnError


class ExportError(BnnError):
    """A network cannot be exported, or its files not be written."""
