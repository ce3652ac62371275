"""Mixtral: Mistral with a mixture of experts in each block (arXiv:2401.04088).

Files have a tensor for each matrix of each expert (`block_sparse_moe.experts.3.w1.weight`), and the
modules of transformers 5 one for all (`mlp.experts.gate_up_proj`). The table of names is that of
the modules, and files are joined and parted. Only one such tensor is in memory at a time.

Left out: `router_jitter_noise`, noise that is added in training (0 in the published configs). The
balance loss is the mean over layers of each layer's; transformers takes the product of the means.
"""

import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfbig.interop.families import decoder
from tfbig.interop.family import Config, Family, activation, field, option, rate
from tfbig.interop.names import Name, linear
from tfbig.interop.rope import rotary
from tfbig.interop.stored_tensor import CheckpointError
from tfbig.models import (
    Attention,
    Block,
    Causal,
    CausalLM,
    Head,
    MixtureOfExperts,
    PreNorm,
    RMSNorm,
    TiedHead,
    TokenFront,
    Transformer,
)

EXPERT = re.compile(r"^(.*layers\.\d+)\.block_sparse_moe\.experts\.(\d+)\.w([123])\.weight$")
# (in, out) of an expert is (out, in) in a checkpoint.
EXPERTS = (0, 2, 1)


def build(config: Config) -> keras.Model:
    """The network of a config."""
    heads = field(config, "num_attention_heads")
    hidden_dim = field(config, "hidden_size")
    layers = field(config, "num_hidden_layers")
    head_dim, start = decoder.head_dim(config), decoder.start(config)
    norm = RMSNorm(option(config, "rms_norm_eps", 1e-5))
    attention = Attention(
        heads,
        head_dim,
        option(config, "num_key_value_heads", heads),
        rotary=rotary({**config, "rope_theta": option(config, "rope_theta", 1e6)}, head_dim),
        sees=Causal(option(config, "sliding_window", 0) or None),
        dropout=rate(config, "attention_dropout", 0.0),
        initializer=start,
    )
    balance = option(config, "router_aux_loss_coef", 0.001) / layers
    experts = MixtureOfExperts(
        option(config, "num_local_experts", 8),
        option(config, "num_experts_per_tok", 2),
        field(config, "intermediate_size"),
        activation(option(config, "hidden_act", "silu")),
        # As transformers: the loss is added where the config asks for the router's logits.
        balance_weight=balance if option(config, "output_router_logits", False) else 0.0,
        initializer=start,
    )
    vocabulary = field(config, "vocab_size")
    return CausalLM(
        TokenFront(vocabulary, hidden_dim, initializer=start),
        Transformer(Block(attention, experts, PreNorm(norm)), layers, norm),
        TiedHead() if decoder.tied(config) else Head(vocabulary, initializer=start),
        name="mixtral",
    )


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names: those of the modules."""
    ours, theirs = decoder.OURS, decoder.THEIRS
    rows = [
        *decoder.norm_rows(),
        *decoder.attention_rows(),
        *linear(f"{theirs}.mlp.gate", f"{ours}.feed_forward.router"),
        Name(
            f"{theirs}.mlp.experts.gate_up_proj",
            (f"{ours}.feed_forward.gate", f"{ours}.feed_forward.up"),
            EXPERTS,
        ),
        Name(f"{theirs}.mlp.experts.down_proj", f"{ours}.feed_forward.down", EXPERTS),
    ]
    return decoder.table(model, rows, not decoder.tied(config))


class Joined:
    """The tensors of a file under the names of the modules, each layer's experts in one.

    Args:
        tensors: of a file, or of a module, which stay as they are.
    """

    def __init__(self, tensors: Any) -> None:
        self._tensors = tensors
        self._names: dict[str, str] = {}
        # The joined name, to the places of its pieces: [expert][w1, w3], or [expert][w2].
        self._pieces: dict[str, dict[int, dict[str, str]]] = {}
        for name in tensors.names():
            found = EXPERT.match(name)
            if found is None:
                self._names[name.replace(".block_sparse_moe.", ".mlp.")] = name
                continue
            layer, expert, part = found.groups()
            kind = "down_proj" if part == "2" else "gate_up_proj"
            experts = self._pieces.setdefault(f"{layer}.mlp.experts.{kind}", {})
            experts.setdefault(int(expert), {})[part] = name

    def names(self) -> tuple[str, ...]:
        """All names, joined."""
        return (*self._names, *self._pieces)

    def read(self, name: str) -> np.ndarray:
        """One tensor: experts first.

        Raises:
            CheckpointError: if an expert is missing, or has another shape than the first.
        """
        if name not in self._pieces:
            return self._tensors.read(self._names[name])
        experts = self._pieces[name]
        parts = "2" if name.endswith("down_proj") else "13"
        try:
            found = [
                np.concatenate([self._tensors.read(experts[i][part]) for part in parts])
                for i in range(len(experts))
            ]
            return np.stack(found)
        except KeyError as error:
            raise CheckpointError(
                f"Tensor {name!r} is made of w{', w'.join(parts)} of each expert; there are "
                f"experts {sorted(experts)}, and expert or matrix {error} is missing: the download "
                f"is incomplete."
            ) from error
        except ValueError as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"The experts of {name!r} are not of one shape ({error}): the file is damaged."
            ) from error


def parted(name: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """A module's tensor as files have it.

    >>> [stored for stored, _ in parted("0.mlp.experts.down_proj", np.ones((2, 3, 4)))]
    ['0.block_sparse_moe.experts.0.w2.weight', '0.block_sparse_moe.experts.1.w2.weight']
    """
    stored = name.replace(".mlp.", ".block_sparse_moe.")
    experts, _, kind = stored.rpartition(".")
    if kind == "down_proj":
        for i, matrix in enumerate(array):
            yield f"{experts}.{i}.w2.weight", matrix
    elif kind == "gate_up_proj":
        for i, matrix in enumerate(array):
            gate, up = np.split(matrix, 2)
            yield f"{experts}.{i}.w1.weight", gate
            yield f"{experts}.{i}.w3.weight", up
    else:
        yield stored, array


FAMILY = Family(
    ("mixtral",),
    build,
    names,
    prefix="model.",
    ignored=decoder.IGNORED,
    joined=Joined,
    parted=parted,
)
