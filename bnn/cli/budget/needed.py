"""What a process needs for a step: predicted, and of what is to fit measured."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

from bnn.cli.budget.configurations import TrainingConfiguration, step_on_meta
from bnn.cli.budget.measure import measure_needed
from bnn.cli.budget.networks import NetworkBuilder
from bnn.cost.memory.budget import Candidate
from bnn.cost.memory.predicted import StepMemory, predict_step
from bnn.cost.memory.resident import available_bytes


class NeededMemory:
    """The memory that steps of a network need.

    Args:
        network: of which steps are taken.
        is_measured: whether steps are taken to find out.
    """

    def __init__(self, network: NetworkBuilder, *, is_measured: bool) -> None:
        self._network = network
        self._is_measured = is_measured
        self._predicted: dict[TrainingConfiguration, StepMemory] = {}
        self._measured: dict[TrainingConfiguration, float | None] = {}

    def total_bytes(self, preset: str, optimizer: str, batch_size: int, slice_size: int) -> float:
        """What has been measured, or else the prediction."""
        configuration = TrainingConfiguration(preset, optimizer, batch_size, slice_size)
        return self._measured.get(configuration) or self._predict(configuration).process_bytes

    def checked(self, find: Callable[[], list[Candidate]]) -> list[Candidate]:
        """What `find` gives by `total_bytes`, when all of it has been measured; it is called until this is so.

        Raises:
            RunError: a step fails.
        """
        candidates = find()
        while self._is_measured and (new := {_configuration(found) for found in candidates} - {*self._measured}):
            for configuration in new:
                self._measured[configuration] = self._measure(configuration)
            candidates = find()
        return [
            replace(candidate, is_measured=self._measured.get(_configuration(candidate)) is not None)
            for candidate in candidates
        ]

    def _measure(self, configuration: TrainingConfiguration) -> float | None:
        """Bytes; None where this machine cannot tell."""
        free_bytes, tensors = available_bytes(), self._predict(configuration).table.total_bytes
        if free_bytes is None or tensors > free_bytes:
            warnings.warn(f"{configuration.preset} is predicted alone: this machine cannot measure it", stacklevel=2)
            return None
        return measure_needed(self._network, configuration)

    def _predict(self, configuration: TrainingConfiguration) -> StepMemory:
        if configuration not in self._predicted:
            step = step_on_meta(self._network, configuration)
            shape = self._network.input_shape
            self._predicted[configuration] = predict_step(step, input_shape=shape, batch_size=configuration.batch_size)
        return self._predicted[configuration]


def _configuration(candidate: Candidate) -> TrainingConfiguration:
    return TrainingConfiguration(candidate.preset, candidate.optimizer, candidate.batch_size, candidate.slice_size)
