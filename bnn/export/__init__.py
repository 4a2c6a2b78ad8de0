"""Trained networks for where there is no Python: C99 and ONNX."""

from bnn.export.c_source import Source, c_source
from bnn.export.errors import ExportError
from bnn.export.lowering import program_of
from bnn.export.program import Program

__all__ = ["ExportError", "Program", "Source", "c_source", "program_of"]
