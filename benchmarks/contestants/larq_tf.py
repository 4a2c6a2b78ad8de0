"""larq on TensorFlow, in the oracle's environment: .venv-oracle/bin/python -m benchmarks.contestants.larq_tf TASK."""

import math
import os
from collections.abc import Callable
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow is loaded

import tensorflow as tf

from benchmarks.contestants import larq_networks
from benchmarks.contestants.measure import Figures, PeakMemory, Task, main, step_times_s


def run(task: Task) -> Figures:
    """Measures forward, loss, backward, update and clipping on one synthetic batch, as Keras trains by default."""
    tf.config.threading.set_intra_op_parallelism_threads(task.threads)
    rehearsal = task.rehearsal()
    training_step(network(rehearsal), *synthetic_batch(rehearsal))()

    x, labels = synthetic_batch(task)
    memory = PeakMemory()
    model = network(task)
    step = training_step(model, x, labels)
    times_s, last_loss = step_times_s(step, warmup=task.warmup, steps=task.steps)
    peak = memory.peak_bytes()
    return Figures(
        step_s=times_s,
        last_loss=last_loss,
        peak_bytes=peak,
        peak_above_start_bytes=peak - memory.start_bytes,
        peak_is_of_whole_process=memory.is_of_whole_process,
        saved_bytes=None,
        parameters=sum(math.prod(weight.shape) for weight in model.trainable_weights),
    )


def synthetic_batch(task: Task) -> tuple[Any, Any]:
    """Normal images and random labels."""
    channels, height, width = task.input_shape
    x = tf.random.stateless_normal((task.batch, height, width, channels), seed=(0, 0))
    return x, tf.random.stateless_uniform((task.batch,), (0, 1), maxval=task.classes, dtype=tf.int32)


def network(task: Task) -> Any:
    """The network, ready to train."""
    channels, height, width = task.input_shape
    image = tf.keras.Input((height, width, channels))
    model = tf.keras.Model(image, getattr(larq_networks, task.model)(image, task.classes))
    model.compile(
        optimizer=tf.keras.optimizers.Adam(1e-3),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def training_step(model: Any, x: Any, labels: Any) -> Callable[[], float]:
    """A function that takes one step on the batch and returns its loss."""
    return lambda: float(model.train_on_batch(x, labels))


if __name__ == "__main__":
    main(run)
