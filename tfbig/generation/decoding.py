"""The two compiled functions of generation: the prompt at once, then token after token.

Shapes are static, so that each is traced once and serves for a whole generation: prompts are padded
on the left to a bucket, and the key/value cache has slots for the prompt and all new tokens. What a
row may see follows from its `start`, the slot of its first token; its positions too.

`prefill(model, inputs, length)` and `step(model, ids, slot, state, length)` are plain functions
here, for a `CausalLM` and for a `Seq2Seq`; `Decoding` compiles them for a model. The state is a
dict of tensors, each with the batch first; who generates only hands it on.

The functions read the model's variables, so weights that training changes are seen; a model that
got other variables (LoRA, quantization) is traced anew. A tap sees what is traced while it is open,
hence not a function that was traced before.
"""

import weakref
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfbig.models import CausalLM, KeyValueCache, Seq2Seq

State = dict[str, Any]

SMALLEST_BUCKET = 64


def bucket(count: int) -> int:
    """The next of 64, 96, 128, 192, 256, 384, ...: at most half is added, and few shapes occur.

    >>> [bucket(n) for n in (1, 64, 65, 97, 129, 1000)]
    [64, 64, 96, 128, 192, 1024]
    """
    size = SMALLEST_BUCKET
    while size < count:
        if size * 3 // 2 >= count:
            return size * 3 // 2
        size *= 2
    return size


def causal_prefill(model: CausalLM, inputs: State, length: int) -> tuple[Any, State]:
    """The prompts into an empty cache.

    Args:
        model: the network.
        inputs: `token_ids` `(batch, time)`, padded on the left, and `starts` `(batch,)`, the slot
            of each row's first token.
        length: the slots of the cache.

    Returns:
        The logits of the next token `(batch, vocabulary)`, of the last position only: the
        vocabulary's matrix is large. And the state.
    """
    cache, starts = KeyValueCache(length), inputs["starts"]
    return _causal(model, inputs["token_ids"], cache, starts)


def causal_step(
    model: CausalLM, ids: Any, slot: Any, state: State, length: int
) -> tuple[Any, State]:
    """One more token for each row.

    Args:
        model: the network.
        ids: `(batch,)`.
        slot: where they stand in the cache, a scalar.
        state: of the call before.
        length: the slots of the cache.

    Returns:
        As `causal_prefill`.
    """
    cache = KeyValueCache(length, slot, state["cache"])
    return _causal(model, ids[:, None], cache, state["starts"])


def _causal(model: CausalLM, ids: Any, cache: KeyValueCache, starts: Any) -> tuple[Any, State]:
    slots = cache.slots(ids.shape[1])
    inputs = {
        "token_ids": ids,
        # That of `masks.positions_of` for padding on the left.
        "positions": ops.maximum(slots[None] - starts[:, None], 0),
        # Slots to come are hidden by the attention's own mask.
        "padding_mask": ops.arange(cache.length, dtype="int32")[None] >= starts[:, None],
    }
    hidden = model.hidden(inputs, cache, training=False)
    return model.logits(hidden[:, -1:])[:, 0], {"cache": cache.arrays, "starts": starts}


def seq2seq_prefill(model: Seq2Seq, inputs: State, length: int) -> tuple[Any, State]:
    """The encoder, once; and the decoder's first tokens. Its arguments are as in `causal_prefill`.

    Args:
        inputs: as the network's; all rows of `decoder_token_ids` are of one length.
    """
    memory = model.encode(inputs, training=False)
    state = {"cache": {}, "memory": memory}
    if "encoder_padding_mask" in inputs:
        state["encoder_padding_mask"] = inputs["encoder_padding_mask"]
    return _seq2seq(model, inputs["decoder_token_ids"], 0, state, length)


def seq2seq_step(
    model: Seq2Seq, ids: Any, slot: Any, state: State, length: int
) -> tuple[Any, State]:
    """One more token for each row; see `causal_step`."""
    return _seq2seq(model, ids[:, None], slot, state, length)


def _seq2seq(model: Seq2Seq, ids: Any, slot: Any, state: State, length: int) -> tuple[Any, State]:
    cache = KeyValueCache(length, slot, state["cache"])
    inputs = {"decoder_token_ids": ids}
    if "encoder_padding_mask" in state:
        inputs["encoder_padding_mask"] = state["encoder_padding_mask"]
    hidden = model.decoder_hidden(inputs, state["memory"], cache, training=False)
    return model.logits(hidden[:, -1:])[:, 0], {**state, "cache": cache.arrays}


def reordered(state: State, rows: Any) -> State:
    """The state of chosen rows, in a new order or several times: for beams.

    >>> reordered({"starts": ops.array([4, 7])}, ops.array([1, 1]))["starts"].numpy().tolist()
    [7, 7]
    """
    return tf.nest.map_structure(lambda array: ops.take(array, rows, axis=0), state)


class Decoding:
    """The functions of a model, compiled. It does not keep the model alive.

    Args:
        model: a `CausalLM` or a `Seq2Seq`.
        jit_compile: whether by XLA; see `decoding_of`.

    Attributes:
        prefill: `(inputs, length) -> logits, state`.
        step: `(ids, slot, state, length) -> logits, state`.
        reorder: `(state, rows) -> state`.
        traces: how often each was traced, by name.
    """

    def __init__(self, model: keras.Model, jit_compile: bool = False) -> None:
        if not isinstance(model, (CausalLM, Seq2Seq)):
            raise TypeError(
                f"Text is generated by a CausalLM or a Seq2Seq of tfbig.models, and this is a "
                f"{type(model).__name__}."
            )
        if not model.built:
            model.build()
        self.variables = list(model.variables)
        self.traces = {"prefill": 0, "step": 0}
        of: Any = weakref.ref(model)
        traces = self.traces
        both: Any = (causal_prefill, causal_step)
        if isinstance(model, Seq2Seq):
            both = (seq2seq_prefill, seq2seq_step)
        first, next_ = both

        def prefill(inputs: State, length: int) -> tuple[Any, State]:
            traces["prefill"] += 1
            return first(of(), inputs, length)

        def step(ids: Any, slot: Any, state: State, length: int) -> tuple[Any, State]:
            traces["step"] += 1
            return next_(of(), ids, slot, state, length)

        self.prefill = tf.function(prefill, autograph=False, jit_compile=jit_compile)
        self.step = tf.function(step, autograph=False, jit_compile=jit_compile)
        self.reorder = tf.function(reordered, autograph=False)

    def fits(self, model: keras.Model) -> bool:
        """Whether the model still has the variables that the functions read."""
        now = model.variables
        return len(now) == len(self.variables) and all(
            a is b for a, b in zip(now, self.variables, strict=True)
        )


_DECODINGS: "weakref.WeakKeyDictionary[keras.Model, dict[bool, Decoding]]" = (
    weakref.WeakKeyDictionary()
)


def decoding_of(model: keras.Model, jit_compile: bool = False) -> Decoding:
    """The compiled functions of a model: made once, kept as long as the model lives.

    Args:
        model: a `CausalLM` or a `Seq2Seq`.
        jit_compile: whether by XLA. Not by default: on one core of a CPU a step of SmolLM2's size
            takes 55 ms as a graph and 53 with XLA, but compiling 8 s and 15.

    Raises:
        TypeError: if it is another network.
    """
    kept = _DECODINGS.setdefault(model, {})
    if jit_compile not in kept or not kept[jit_compile].fits(model):
        kept[jit_compile] = Decoding(model, jit_compile)
    return kept[jit_compile]
