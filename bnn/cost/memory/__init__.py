"""The memory of a training step: published, predicted on shapes alone, and measured."""

from bnn.cost.memory.measured import MeasuredMemory, measure_step
from bnn.cost.memory.predicted import StepMemory, predict_step
from bnn.cost.memory.resident import peak_device_bytes, peak_rss_bytes
from bnn.cost.memory.table import MemoryTable, Variable

__all__ = [
    "MeasuredMemory",
    "MemoryTable",
    "StepMemory",
    "Variable",
    "measure_step",
    "peak_device_bytes",
    "peak_rss_bytes",
    "predict_step",
]
