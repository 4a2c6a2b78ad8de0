"""larq on TensorFlow, in the oracle's environment: .venv-oracle/bin/python -m benchmarks.contestants.larq_tf TASK."""

import math
import os
from collections.abc import Callable
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before TensorFlow is loaded

import tensorflow as tf
from larq_compute_engine import convert_keras_model
from larq_compute_engine.tflite.python.interpreter import Interpreter

from benchmarks.contestants import larq_networks
from benchmarks.contestants.measure import Figures, PeakMemory, Task, main, step_times_s


def run(task: Task) -> Figures:
    """Measures forward, loss, backward, update and clipping on one synthetic batch, as Keras trains by default.

    Inference is the forward pass of `predict_on_batch`, which multiplies floats. In the mode `engine` it is that of
    larq's engine for bits, image by image as its interpreter takes them; its kernels are optimized for ARM alone.
    """
    if task.weights != "sign":
        raise SystemExit("larq has no ReCU")
    if task.mode == "engine" and not task.inference:
        raise SystemExit("larq's engine does not train")
    tf.config.threading.set_intra_op_parallelism_threads(task.threads)
    rehearsal = task.rehearsal()
    step_of(network(rehearsal), rehearsal, *synthetic_batch(rehearsal))()

    x, labels = synthetic_batch(task)
    memory = PeakMemory()
    model = network(task)
    step = step_of(model, task, x, labels)
    times_s, last_loss = step_times_s(step, warmup=task.warmup, steps=task.steps, before_timing=memory.restart)
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
    """The network, ready to train: one of `larq_networks`, or larq-zoo's own."""
    channels, height, width = task.input_shape
    if task.model in larq_networks.OF_ZOO:
        build = larq_networks.OF_ZOO[task.model]
        model = build(input_shape=(height, width, channels), num_classes=task.classes, weights=None)
    else:
        image = tf.keras.Input((height, width, channels))
        model = tf.keras.Model(image, getattr(larq_networks, task.model)(image, task.classes))
    logits = task.model not in larq_networks.OF_ZOO
    model.compile(
        optimizer=tf.keras.optimizers.Adam(1e-3),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=logits),
    )
    return model


def step_of(model: Any, task: Task, x: Any, labels: Any) -> Callable[[], float | None]:
    """A function that takes one step of the task's kind on the batch and returns its loss, if it has one."""
    if not task.inference:
        return lambda: float(model.train_on_batch(x, labels))
    images = x.numpy()
    if task.mode == "engine":
        interpreter = Interpreter(convert_keras_model(model), num_threads=task.threads, use_xnnpack=True)
        predict = interpreter.predict
    else:
        predict = model.predict_on_batch

    def infer() -> None:
        predict(images)

    return infer


if __name__ == "__main__":
    main(run)
