"""Where an epoch's batches come from, and how many steps one call runs over them.

Calling TensorFlow from Python costs more than a step of a small network. So the steps are fused: a
compiled `while` loop runs many of them, over arrays in memory or over a `tf.data` iterator.
Over arrays it is faster still, since no pipeline stands between: the order of the examples is taken
from Keras, and the compiled loop gathers each batch by itself.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import keras
import tensorflow as tf

from tfbig.training import surgery

Step = Callable[[Any], dict]


class Batches(Protocol):
    """The batches of one epoch after the other."""

    @property
    def num_batches(self) -> int | None:
        """How many there are in an epoch, if that is known."""

    def reset(self) -> None:
        """Begins at the beginning again, also where an epoch ended before the data did."""

    def epoch(self) -> Iterator[Callable[[int], tuple[int, dict]]]:
        """Yields, as long as there may be batches, `run(count) -> steps done, logs`."""


class CompiledSteps:
    """A step, and the compiled loops around it. Traced once, for all calls of `fit`.

    Args:
        step: takes a batch and returns logs.
        eager: whether the step is to run in Python, uncompiled.
        jit_compile: whether XLA compiles it.
    """

    def __init__(self, step: Step, eager: bool, jit_compile: bool) -> None:
        self.eager = eager
        if eager:
            self.stream = _one_by_one(step)
            return
        # None and not False: what is never to be compiled by XLA is not inlined either.
        step = tf.function(
            step, reduce_retracing=True, jit_compile=jit_compile or None, autograph=False
        )
        self.stream = _compiled_stream(step)
        self.gather = _compiled_gather(step)


def batches(model: keras.Model, steps: CompiledSteps, **data: Any) -> Batches:
    """The fastest source that treats these data as `fit` does.

    Args:
        model: a compiled Keras model.
        steps: what to do with a batch.
        **data: `x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight`.
    """
    adapter = None if steps.eager else surgery.in_memory(**data)
    examples = None if adapter is None else surgery.examples(adapter)
    if examples is not None:
        return InMemory(steps, adapter, examples)
    return Streamed(steps, surgery.epoch_iterator(model, **data))


class InMemory:
    """Arrays, as tensors in memory; a compiled loop gathers each batch."""

    def __init__(self, steps: CompiledSteps, adapter: Any, examples: Any) -> None:
        num_samples, batch_size = surgery.sizes(adapter)
        self.num_batches = adapter.num_batches
        self._orders = surgery.orders(adapter)
        # As in Keras's own pipeline the size of a batch is known where all are of one size.
        static_size = None if num_samples % batch_size else batch_size
        self._run = functools.partial(
            steps.gather, examples, tf.constant(batch_size, tf.int64), static_size
        )

    def reset(self) -> None:
        """An epoch over arrays begins at their beginning anyway."""

    def epoch(self) -> Iterator[Callable[[int], tuple[int, dict]]]:
        order, done = next(self._orders), 0

        def run(count: int) -> tuple[int, dict]:
            nonlocal done
            begin, done = done, min(done + count, self.num_batches)
            bounds = tf.constant([begin, done], tf.int64)
            return done - begin, self._run(order, bounds)

        while done < self.num_batches:
            yield run


class Streamed:
    """Whatever else Keras takes: `tf.data`, `PyDataset`, generators, large arrays."""

    def __init__(self, steps: CompiledSteps, iterator: Any) -> None:
        self._iterator = iterator
        self._run = steps.stream

    def reset(self) -> None:
        self._iterator.reset()

    @property
    def num_batches(self) -> int | None:
        return self._iterator.num_batches

    def epoch(self) -> Iterator[Callable[[int], tuple[int, dict]]]:
        steps = surgery.steps_of_epoch(self._iterator)
        exhausted, left = False, self.num_batches

        for source in steps:

            def run(count: int, source=source) -> tuple[int, dict]:
                nonlocal exhausted, left
                # To ask for more than there is would end the epoch before its steps have run.
                count = min(count, left or count)
                wanted = 1 + len(list(itertools.islice(steps, count - 1)))
                done, logs = self._run(source, wanted)
                exhausted = bool(done < wanted)
                left = left and left - wanted
                if exhausted:
                    surgery.finish_exhausted_epoch(self._iterator)
                return int(done), logs

            yield run
            if exhausted:
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


def _compiled_gather(step: Step) -> Callable:
    """Runs the steps `begin` to `end` of an epoch in a compiled loop that gathers each batch."""

    @tf.function(reduce_retracing=True, autograph=False)
    def run(
        examples: Any,
        batch_size: tf.Tensor,
        static_size: int | None,
        order: tf.Tensor,  # (num_samples,)
        bounds: tf.Tensor,  # (2,)
    ) -> dict:
        begin, end = tf.unstack(bounds)

        def batch_at(step_of_epoch):
            rows = order[step_of_epoch * batch_size : (step_of_epoch + 1) * batch_size]
            rows = tf.ensure_shape(rows, (static_size,))
            return keras.tree.map_structure(
                lambda t: None if t is None else tf.gather(t, rows), examples
            )

        def body(step_of_epoch, logs):
            return step_of_epoch + 1, step(batch_at(step_of_epoch))

        # The step stands in the graph once: in a large network, to optimize it takes seconds.
        spec = keras.tree.map_structure(
            lambda t: None if t is None else tf.TensorSpec((static_size, *t.shape[1:]), t.dtype),
            examples,
        )
        return tf.while_loop(lambda i, logs: i < end, body, (begin, _no_logs(step, spec)))[1]

    return run


def _no_logs(step: Any, batch_spec: Any) -> dict:
    """Zeros in the shape of the logs, for the compiled loop to begin with."""
    logs = step.get_concrete_function(batch_spec).structured_outputs
    return tf.nest.map_structure(lambda t: tf.zeros([size or 0 for size in t.shape], t.dtype), logs)
