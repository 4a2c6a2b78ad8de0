"""Callbacks that add figures to a run's epochs and its summary, and the quantization card."""

from bnn.cost.meters.accumulators import AccumulatorMeter
from bnn.cost.meters.beside_float import FloatComparison
from bnn.cost.meters.card import quantization_card
from bnn.cost.meters.gated_xnor import GatedXnorMeter
from bnn.cost.meters.gradients import GradientMeter
from bnn.cost.meters.latent_motion import LatentMotion
from bnn.cost.meters.memory_profile import MemoryProfile
from bnn.cost.meters.summary import EnergyMeter, ExchangeMeter, MemoryMeter, SpeedMeter, StorageMeter
from bnn.cost.meters.weights import WeightMeter

__all__ = [
    "AccumulatorMeter",
    "EnergyMeter",
    "ExchangeMeter",
    "FloatComparison",
    "GatedXnorMeter",
    "GradientMeter",
    "LatentMotion",
    "MemoryMeter",
    "MemoryProfile",
    "SpeedMeter",
    "StorageMeter",
    "WeightMeter",
    "quantization_card",
]
