"""The training step: forward, loss and backward of a batch, slice by slice, and the update.

It is the only one of the package: the trainer, the memory predictions (on the meta device), the reports and the
benchmarks all call it, and so can a training loop of your own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.distributed import Exchange, Part, exchanging, shares_slices
from bnn.errors import DistributedError, NonFiniteError, RecipeError, first_line
from bnn.layers.precision import Precision, products_of
from bnn.layers.sharing import obstacle_to_sharing, on_all_rows
from bnn.optim.finite import all_finite
from bnn.random.streams import draw_seed, slice_seed
from bnn.training.replay import Replay
from bnn.weights import WeightStore, is_accumulator

Loss = Callable[[Tensor, Tensor], Tensor]
"""A loss of logits and labels, a mean over the batch."""


InputLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A loss of logits, labels and the batch itself, a mean over the batch."""


@dataclass(frozen=True)
class StepResult:
    """The result of a training step."""

    loss: float
    """Mean over the batch."""
    correct: int
    """Examples whose largest logit is that of their label."""
    examples: int
    """Of the batch, on all ranks."""


@dataclass(kw_only=True)
class TrainingStep:
    """A model with its optimizer, loss, precision and slices.

    Raises:
        RecipeError: a value is out of its range.
    """

    model: nn.Module
    """Takes float [B, C, H, W] and gives logits [B, classes]; its weights are those to start from."""
    optimizer: torch.optim.Optimizer
    """Over the model's parameters."""
    loss: Loss = F.cross_entropy
    slice_size: int | None = None
    """Largest number of examples that go through the network at once; None: the whole batch.

    A batch is cut into slices of nearly equal size whose gradients add up, so that the memory for activations does
    not grow with the batch. Ranks that take whole slices go a fifth beyond it where that spares each of them one. Batch
    norms see a slice at a time, as ghost batches (Hoffer et al. 2017, arXiv
    1705.08741).
    """
    precision: Precision = "float32"
    """Precision of the floating products and of what lies between them, in training and evaluation.

    bfloat16 is torch's autocast: products sum in float32 and round their result, weights and optimizer keep their own
    dtype. Levels of binary and ternary layers are exact in either. A processor with bfloat16 products, such as those
    with AMX, is several times as fast. Predictions of memory and energy do not know it: they are those of float32.
    """
    generators: Mapping[str, torch.Generator] = field(default_factory=dict)
    """Generators that the model or optimizer draws from in training; checkpoints keep their states."""
    exchange: Exchange | None = None
    """What becomes of the gradients where several ranks share each batch; None: one process has it all."""
    training_loss: InputLoss | None = None
    """Takes the place of `loss` in training, where it depends on the input as well, as a teacher's does."""
    replay: Replay | None = None
    """Examples of earlier classes that go into each step behind the frozen first layers of a `Graph`; or None."""

    def __post_init__(self) -> None:
        if self.slice_size is not None and self.slice_size < 1:
            raise RecipeError(f"a slice has at least 1 example, got {self.slice_size}")
        if self.precision not in get_args(Precision):
            raise RecipeError(f"the precision is one of {', '.join(get_args(Precision))}, got {self.precision!r}")

    def slice_count(self, batch_size: int) -> int:
        """Slices that a batch, or with an exchange the joint batch of all ranks, is cut into."""
        most = self.slice_size or batch_size
        return math.ceil(batch_size / most) if self.exchange is None else self.exchange.slices(batch_size, most)

    def take(
        self,
        x: Tensor,
        labels: Tensor,
        *,
        slices: int | None = None,
        prepare: Callable[[Tensor], Tensor] = lambda x: x,
        before_backward: Callable[[Tensor], None] = lambda loss: None,
        before_update: Callable[[], None] = lambda: None,
    ) -> StepResult | None:
        """Takes a step; a loss or gradient that is not finite leaves no trace.

        With steps inside backward (`bnn.optim.step_in_backward`) there is an exception: parameters whose gradients came
        before the one that is not finite have been stepped already.

        Args:
            x: the batch, or with an exchange this rank's rows of it; the model is in training mode.
            labels: int64 [B].
            slices: how many slices to process, from the first; by default all.
            prepare: makes the model's input of some rows of `x`, slice by slice, as `Batches.normalized` does of
                pixels, so that floats of a whole batch never exist.
            before_backward: called with the loss of each slice, whose graph is then at its largest.
            before_update: called when all gradients are there, and finite.

        Returns:
            The result; None where the loss or a gradient was not finite.

        Raises:
            RecipeError: the model, the loss or the optimizer fails.
            DistributedError: several processes share the batch, and there are examples to replay.
            MemoryError: there is not enough memory.
        """
        if self.exchange is not None and self.replay is not None:
            raise DistributedError("several processes cannot replay examples of earlier classes: take one")
        if shares_slices(self.exchange) and self.training_loss is not None:
            raise DistributedError("the exchange `exact` knows no loss of the input: take --exchange count")
        # Such as running statistics, which a forward pass changes.
        modules = list(self.model.modules())
        trained = [module for module in modules if module.training and module._buffers]
        buffers = [x for module in trained for x in module._buffers.values() if x is not None]
        before = [x.clone() for x in buffers]
        with exchanging(self.exchange):
            if self.exchange is None:
                result = self._accumulate(x, labels, slices, prepare, before_backward)
            else:
                result = self._accumulate_shared(self.exchange, x, labels, prepare, before_backward)
        if result is not None and not _finite_gradients(self.optimizer):
            result = None
        if result is not None and not self._update(before_update, modules):
            result = None
        self.optimizer.zero_grad(set_to_none=True)
        if result is None:
            _restore(buffers, before)
        return result

    def forward(self, x: Tensor, labels: Tensor, replayed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits and loss, which is of float32.

        Args:
            x: the batch.
            labels: int64 [B], then those of what is replayed.
            replayed: rows of `Replay`, or None.
        """
        with products_of(self.precision, x.device):
            logits = self.model(x) if replayed is None else self.model(x, replayed)
        if self.precision == "bfloat16":
            logits = logits.float()
        if self.training_loss is not None and self.model.training:
            return logits, self.training_loss(logits, labels, x)
        return logits, self.loss(logits, labels)

    def states(self) -> list[Tensor]:
        """The tensors that the optimizer keeps between steps."""
        kept = (value for state in self.optimizer.state.values() for value in state.values())
        return [value for value in kept if isinstance(value, Tensor)]

    def _accumulate(
        self,
        x: Tensor,
        labels: Tensor,
        slices: int | None,
        prepare: Callable[[Tensor], Tensor],
        before_backward: Callable[[Tensor], None],
    ) -> StepResult | None:
        """The gradients; None where the loss is not finite."""
        examples = len(labels) + (0 if self.replay is None else self.replay.per_step)
        count = min(self.slice_count(examples), len(labels))
        replayed: Sequence[tuple[Tensor, Tensor] | None] = [None] * count
        if self.replay is not None:
            replayed = self.replay.drawn(count)
        parts = list(zip(x.tensor_split(count), labels.tensor_split(count), replayed, strict=True))
        loss, correct = 0.0, 0
        try:
            for x_slice, labels_slice, others in parts[:slices]:
                with model_errors(x_slice):
                    part = self._accumulate_slice(prepare(x_slice), labels_slice, examples, before_backward, others)
                loss += part.loss
                correct += part.correct
        except NonFiniteError:
            return None
        return StepResult(loss, correct, examples)

    def _accumulate_slice(
        self,
        x: Tensor,
        labels: Tensor,
        examples: int,
        before_backward: Callable[[Tensor], None],
        replayed: tuple[Tensor, Tensor] | None,
    ) -> StepResult:
        rows = None
        if replayed is not None:
            rows, others = replayed[0].to(x.device), replayed[1].to(x.device)
            labels = torch.cat((labels, others))
        share = len(labels) / examples
        logits, mean = self.forward(x, labels, rows)
        before_backward(mean)
        part = mean * share
        loss = part.item()
        if not math.isfinite(loss):
            raise NonFiniteError("the loss is not finite")
        part.backward()  # type: ignore[no-untyped-call]
        return StepResult(loss, count_correct(logits, labels), len(labels))

    def _accumulate_shared(
        self,
        exchange: Exchange,
        x: Tensor,
        labels: Tensor,
        prepare: Callable[[Tensor], Tensor],
        before_backward: Callable[[Tensor], None],
    ) -> StepResult | None:
        """The gradients of a batch that ranks share; None, on all of them, where one's loss or gradient is not finite.

        Raises:
            DistributedError: the rows are not those of the exchange, or another rank is lost.
        """
        ranks = exchange.ranks
        if shares_slices(exchange) and (obstacle := obstacle_to_sharing(self.model)) is not None:
            raise DistributedError(
                f"ranks cannot share the slices of this network bit for bit: {obstacle}; take --exchange count"
            )
        # That of the first rank, whatever the others' generators have been used for; float64 holds 52 bits.
        drawn = draw_seed(torch.default_generator) >> 10
        seed = int(ranks.agree(0.0 if ranks.rank else drawn))
        joint = int(ranks.sum_(torch.tensor([len(labels)], device=ranks.device)))
        parts = exchange.parts(joint, self.slice_count(joint))
        sizes = [len(part.rows) for part in parts]
        if sum(sizes) != len(labels):
            raise DistributedError(
                f"rank {ranks.rank} has {len(labels)} of the {joint} examples of a batch, and not its {sum(sizes)}:"
                " take the rows that the exchange names"
            )
        exchange.begin_step(seed)
        buffers = list(self.model.buffers()) if exchange.averages_buffers else []
        before, made = [buffer.clone() for buffer in buffers], []
        adds_up = exchange.adds_up_parameters and ranks.size > 1  # one process adds up in backward
        of_parts, losses, correct = [], [], 0
        try:
            for part, x_part, labels_part in zip(parts, torch.split(x, sizes), torch.split(labels, sizes), strict=True):
                _restore(buffers, before)
                exchange.begin_part(part)
                with model_errors(x_part), self._draws_of(part.number, seed):
                    made_of = prepare(x_part)
                    of_part, hits = self._accumulate_part(exchange, part, joint, made_of, labels_part, before_backward)
                losses.append(of_part)
                correct += hits
                made.append([buffer.clone() for buffer in buffers])
                if adds_up:
                    of_parts.append(self._take_gradients())
            ranks.agree()
        except NonFiniteError:
            ranks.leave_step()
            return None
        if adds_up:
            gradients = exchange.of_parameters([list(part.values()) for part in of_parts])
            for parameter, gradient in zip(of_parts[0], gradients, strict=True):
                parameter.grad = gradient
        if buffers:
            _restore(buffers, exchange.of_buffers(before, made))
        correct = int(ranks.sum_(torch.tensor([correct], device=ranks.device)))
        return StepResult(exchange.loss_of(losses, joint), correct, joint)

    def _accumulate_part(
        self,
        exchange: Exchange,
        part: Part,
        joint: int,
        x: Tensor,
        labels: Tensor,
        before_backward: Callable[[Tensor], None],
    ) -> tuple[Tensor, int]:
        """Gradients of some rows; their part of the loss of the joint batch, float64 [1] or [rows], and hits."""
        share = part.examples / joint
        if shares_slices(exchange):
            # The loss of an example, and its gradient, must not depend on how many others are here.
            with products_of(self.precision, x.device), on_all_rows(self.model, exchange):
                logits = self.model(x).float()
            losses = torch.stack(
                [self.loss(*row) for row in zip(torch.split(logits, 1), torch.split(labels, 1), strict=True)]
            )
            before_backward(losses.mean())
            of_loss = losses * (torch.tensor(share) / part.examples).item()
        else:
            logits, mean = self.forward(x, labels)
            before_backward(mean)
            of_loss = (mean * share)[None]
        if not of_loss.isfinite().all():
            raise NonFiniteError("the loss is not finite")
        if shares_slices(exchange):
            exchange.ranks.agree()  # once for all of backward, where no rank fails alone
        of_loss.sum().backward()  # type: ignore[no-untyped-call]
        exchange.end_part()
        return of_loss.detach().double(), count_correct(logits, labels)

    def _take_gradients(self) -> dict[Tensor, Tensor]:
        """The gradients of the parameters that are no accumulators, which no longer have them."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if not is_accumulator(p)]
        taken = {parameter: parameter.grad for parameter in parameters if parameter.grad is not None}
        for parameter in taken:
            parameter.grad = None
        return taken

    @contextmanager
    def _draws_of(self, number: int, seed: int) -> Iterator[None]:
        """While it is entered, all generators draw what belongs to a slice of the batch, whichever rank has it."""
        generators = [torch.default_generator, *self.generators.values()]
        states = [generator.get_state() for generator in generators]
        for i, generator in enumerate(generators):
            generator.manual_seed(slice_seed(seed=seed, generator=i, number=number))
        try:
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)

    def _update(self, before_update: Callable[[], None], modules: Sequence[nn.Module]) -> bool:
        """Steps the optimizer; False where it, or what comes before it, refuses a gradient that is not finite."""
        try:
            before_update()
            self._step_optimizer()
        except NonFiniteError:
            return False
        for module in modules:
            if isinstance(module, WeightStore):
                module.project_()
        return True

    def _step_optimizer(self) -> None:
        try:
            self.optimizer.step()
        except (RuntimeError, OverflowError) as error:
            raise RecipeError(f"the optimizer's step fails: {error}; lower the learning rate") from error


def count_correct(logits: Tensor, labels: Tensor) -> int:
    """Examples whose largest logit is that of their label."""
    return int((logits.argmax(dim=1) == labels).sum())


@torch.no_grad()
def _restore(buffers: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for buffer, value in zip(buffers, values, strict=True):
        buffer.copy_(value)


def _finite_gradients(optimizer: torch.optim.Optimizer) -> bool:
    gradients = (parameter.grad for group in optimizer.param_groups for parameter in group["params"])
    return all_finite(x for x in gradients if x is not None and not isinstance(x, BitTensor))


@contextmanager
def model_errors(x: Tensor) -> Iterator[None]:
    """Turns what torch raises where model, loss and data do not fit each other, or memory is out, into one line.

    Args:
        x: the batch or slice.

    Raises:
        RecipeError: in place of torch's error, which is its cause.
        MemoryError: there is not enough memory.
    """
    try:
        yield
    except NonFiniteError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        if "allocate memory" in str(error):
            raise MemoryError from error
        raise RecipeError(f"the model or loss fails on a batch of {list(x.shape)}: {first_line(error)}") from error
