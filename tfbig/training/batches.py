"""Where an epoch's batches come from, and how many steps one call runs over them.

Calling TensorFlow from Python costs more than a step of a small network. So the steps are fused: a
compiled `while` loop runs many of them, over arrays that lie in memory or over a `tf.data` iterator.
Over arrays it is faster still, since no pipeline stands between: the order of the examples is taken
from Keras, and the compiled loop gathers each batch by itself.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import keras
import tensorflow as tf

from tfbig.training import surgery

Step = Callable[[Any], dict]


class Batches(Protocol):
    """The batches of one epoch after the other."""

    num_batches: int | None

    def epoch(self) -> Iterator[Callable[[int], tuple[int, dict]]]:
        """Yields, as long as there may be batches, `run(count) -> steps done, logs`."""


def batches(model: keras.Model, step: Step, **data: Any) -> Batches:
    """The fastest source that treats these data as `fit` does.

    Args:
        model: a compiled Keras model.
        step: takes a batch, returns logs; a `tf.function` unless the model runs eagerly.
        **data: `x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight`.
    """
    adapter = None if model.run_eagerly else surgery.in_memory(**data)
    if adapter is not None and not any(
        isinstance(leaf, tf.SparseTensor) for leaf in keras.tree.flatten(surgery.examples(adapter))
    ):
        return InMemory(step, adapter)
    return Streamed(step, surgery.epoch_iterator(model, **data), eager=model.run_eagerly)


class InMemory:
    """Arrays, as tensors in memory; a compiled loop gathers each batch."""

    def __init__(self, step: Step, adapter: Any) -> None:
        self.num_batches = adapter.num_batches
        self._orders = surgery.orders(adapter)
        self._run = _compiled_gather(step, surgery.examples(adapter), *surgery.sizes(adapter))

    def epoch(self) -> Iterator[Callable[[int], tuple[int, dict]]]:
        order, done = next(self._orders), 0

        def run(count: int) -> tuple[int, dict]:
            nonlocal done
            begin, done = done, min(done + count, self.num_batches)
            return done - begin, self._run(order, tf.constant(begin), tf.constant(done))

        while done < self.num_batches:
            yield run


class Streamed:
    """Whatever else Keras takes: `tf.data`, `PyDataset`, generators, large arrays."""

    def __init__(self, step: Step, iterator: Any, eager: bool) -> None:
        self._iterator = iterator
        self._iterator.reset()
        self._run = _one_by_one(step) if eager else _compiled_stream(step)

    @property
    def num_batches(self) -> int | None:
        return self._iterator.num_batches

    def epoch(self) -> Iterator[Callable[[int], tuple[int, dict]]]:
        steps = surgery.steps_of_epoch(self._iterator)
        exhausted = False

        for source in steps:

            def run(count: int, source=source) -> tuple[int, dict]:
                nonlocal exhausted
                wanted = 1 + len(list(itertools.islice(steps, count - 1)))
                done, logs = self._run(source, wanted)
                exhausted = done < wanted
                return int(done), logs

            yield run
            if exhausted:
                surgery.finish_exhausted_epoch(self._iterator)
                return


def _one_by_one(step: Step) -> Callable:
    """Runs the steps in Python, each on a batch that is fetched in Python."""

    def run(iterator: Iterator, count: int) -> tuple[int, dict]:
        logs: dict = {}
        for done in range(count):
            try:
                batch = next(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                return done, logs
            logs = step(surgery.without_optionals(batch))
        return count, logs

    return run


def _compiled_stream(step: Step) -> Callable:
    """Runs the steps in a compiled loop, each on a batch that the loop fetches.

    `get_next_as_optional` tells the end of the data before the step begins; a failing `get_next`
    would let run what does not wait for the batch (V26).
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def run(iterator: tf.data.Iterator, count: tf.Tensor) -> tuple[tf.Tensor, dict]:
        def more(done, batch, logs):
            return tf.logical_and(done < count, batch.has_value())

        def body(done, batch, logs):
            logs = step(surgery.without_optionals(batch.get_value()))
            done += 1
            batch = tf.cond(done < count, iterator.get_next_as_optional, lambda: batch)
            return done, batch, logs

        spec = surgery.without_optionals(iterator.element_spec)
        begin = (tf.constant(0), iterator.get_next_as_optional(), _no_logs(step, spec))
        done, _, logs = tf.while_loop(more, body, begin)
        return done, logs

    return lambda iterator, count: run(iterator, tf.constant(count))


def _compiled_gather(step: Step, examples: Any, num_samples: int, batch_size: int) -> Callable:
    """Runs the steps `begin` to `end` of an epoch in a compiled loop that gathers each batch."""
    # As in Keras's own pipeline the size of a batch is known where all are of one size.
    static_size = None if num_samples % batch_size else batch_size
    if num_samples <= batch_size:
        static_size = num_samples

    def batch_at(step_of_epoch, order):
        rows = order[step_of_epoch * batch_size : (step_of_epoch + 1) * batch_size]
        rows = tf.ensure_shape(rows, (static_size,))
        return keras.tree.map_structure(
            lambda t: None if t is None else tf.gather(t, rows), examples
        )

    spec = keras.tree.map_structure(
        lambda t: None if t is None else tf.TensorSpec((static_size, *t.shape[1:]), t.dtype),
        examples,
    )

    @tf.function(autograph=False)
    def run(order: tf.Tensor, begin: tf.Tensor, end: tf.Tensor) -> dict:
        def body(step_of_epoch, logs):
            return step_of_epoch + 1, step(batch_at(step_of_epoch, order))

        return tf.while_loop(lambda i, logs: i < end, body, (begin, _no_logs(step, spec)))[1]

    return run


def _no_logs(step: Step, batch_spec: Any) -> dict:
    """Zeros in the shape of the logs, for the compiled loop to begin with."""
    logs = step.get_concrete_function(batch_spec).structured_outputs
    return tf.nest.map_structure(
        lambda t: tf.zeros([size or 0 for size in t.shape], t.dtype), logs
    )
