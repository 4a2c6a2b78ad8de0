"""Any network as a binary one: `binarize`."""

from bnn.models.conversion.binarize import Binarized, binarize
from bnn.models.conversion.report import LayerChange, Report

__all__ = ["Binarized", "LayerChange", "Report", "binarize"]
