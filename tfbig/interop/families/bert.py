"""BERT and MiniLM: LayerNorm after each branch, learned positions, types of tokens.

Source: Devlin et al., 2018 (arXiv:1810.04805); MiniLM is a small BERT (arXiv:2002.10957). What a
checkpoint becomes:

    BertModel                       states; with the files of sentence-transformers one vector
    BertForMaskedLM, ForPreTraining logits over tokens
    BertForSequenceClassification   logits of classes

The pooler of a bare BertModel and the second head of BertForPreTraining are weights that no output
here needs: they are kept and saved again, but not trained. Left out: BERT as a decoder, a free
head over the vocabulary, and the other tasks of `transformers`.
"""

from typing import Any

import keras

from tfbig.interop import sentence_transformers
from tfbig.interop.family import (
    Config,
    Family,
    activation,
    architecture,
    head_dim,
    num_classes,
    option,
    rate,
)
from tfbig.interop.names import Name, each_layer, layer_norm, linear
from tfbig.interop.stored_tensor import CheckpointError, shown
from tfbig.models import (
    Attention,
    Block,
    Classifier,
    FeedForward,
    FirstToken,
    LearnedPositions,
    MaskedLM,
    PostNorm,
    TextEncoder,
    TiedHead,
    TokenFront,
    Transform,
    Transformer,
)

ALIASES = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))
POSITION_IDS = r"position_ids$"
_CLASSES = {
    "bert": "Bert",
    "distilbert": "DistilBert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
}
# What the name of a class says behind that of its family. (A "BertLMHeadModel" is no "BertModel".)
_TASKS = {
    "Model": "states",
    "ForMaskedLM": "tokens",
    "ForPreTraining": "tokens",
    "ForSequenceClassification": "classes",
}


def build(config: Config) -> keras.Model:
    """The network of a config."""
    hidden_dim = option(config, "hidden_size", 768)
    front = TokenFront(
        option(config, "vocab_size", 30522),
        hidden_dim,
        LearnedPositions(
            option(config, "max_position_embeddings", 512), hidden_dim, initializer=start(config)
        ),
        **front_options(config),
    )
    head = TiedHead(
        bias_size=front.vocabulary_size,
        transform=Transform(
            hidden_dim, activation(option(config, "hidden_act", "gelu")), norm(config)
        ),
    )
    classifier = Classifier(
        num_classes(config), Transform(hidden_dim, "tanh"), classifier_dropout(config)
    )
    return assembled(config, front, transformer(config), head, classifier)


def task(config: Config) -> str:
    """What the network gives: "states", "tokens" or "classes".

    Raises:
        CheckpointError: if it is none of these.

    >>> task({"model_type": "bert", "architectures": ["BertForMaskedLM"]})
    'tokens'
    """
    name = architecture(config)
    # Their folders hold a bare network, whatever the config says that it was made of.
    if sentence_transformers.KEY in config or not name:
        return "states"
    known = {_CLASSES[config["model_type"]] + ending: kind for ending, kind in _TASKS.items()}
    decoder = option(config, "is_decoder", False)
    if name not in known or decoder:
        raise CheckpointError(
            f"config.json: a network {shown(name)} is not read{' as a decoder' if decoder else ''};"
            f" those of this family are {', '.join(known)}. To read its encoder alone, name the "
            f"first of them there."
        )
    return known[name]


def assembled(
    config: Config, front: Any, stack: Any, head: Any, classifier: Any, name: str = ""
) -> keras.Model:
    """The network of a task, of its parts.

    Args:
        config: tells the task.
        front: of tokens.
        stack: of blocks.
        head: over the vocabulary.
        classifier: over the first token.
        name: of the network; by default its model type.

    Raises:
        CheckpointError: if the head over the vocabulary is not tied.
    """
    name = name or str(config["model_type"]).replace("-", "_")
    kind = task(config)
    if kind == "tokens":
        if not option(config, "tie_word_embeddings", True):
            raise CheckpointError(
                "config.json: tie_word_embeddings is false, and the head of a masked language "
                "model is read where it shares the table of tokens. Name the bare network in "
                "architectures to read it without the head."
            )
        return MaskedLM(front, stack, head, name=name)
    if kind == "classes":
        return TextEncoder(front, stack, FirstToken(name="pooling"), classifier, name=name)
    return TextEncoder(front, stack, *sentence_transformers.parts(config), name=name)


def start(config: Config) -> keras.Initializer:
    """How weights are drawn."""
    return keras.initializers.RandomNormal(stddev=option(config, "initializer_range", 0.02))


def norm(config: Config) -> keras.layers.LayerNormalization:
    """The norm of all places."""
    return keras.layers.LayerNormalization(epsilon=option(config, "layer_norm_eps", 1e-12))


def front_options(config: Config) -> dict[str, Any]:
    """What the fronts of BERT and RoBERTa share."""
    return {
        "token_types": option(config, "type_vocab_size", 2),
        "norm": norm(config),
        "dropout": rate(config, "hidden_dropout_prob", 0.1),
        "initializer": start(config),
    }


def classifier_dropout(config: Config) -> float:
    """Before the classes."""
    return rate(config, "classifier_dropout", rate(config, "hidden_dropout_prob", 0.1))


def transformer(config: Config) -> Transformer:
    """The stack of blocks of BERT and RoBERTa."""
    heads = option(config, "num_attention_heads", 12)
    attention = Attention(
        heads,
        head_dim(option(config, "hidden_size", 768), heads),
        biases=("query", "key", "value", "output"),
        dropout=rate(config, "attention_probs_dropout_prob", 0.1),
        initializer=start(config),
    )
    feed_forward = FeedForward(
        option(config, "intermediate_size", 3072),
        activation(option(config, "hidden_act", "gelu")),
        initializer=start(config),
    )
    join = PostNorm(norm(config), rate(config, "hidden_dropout_prob", 0.1))
    return Transformer(
        Block(attention, feed_forward, join), option(config, "num_hidden_layers", 12)
    )


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names."""
    kind = task(config)
    rows = encoder_names("" if kind == "states" else "bert.", model)
    if kind == "tokens":
        rows += [
            Name("cls.predictions.bias", "head.bias"),
            *linear("cls.predictions.transform.dense", "head.transform.dense", bias=True),
            *layer_norm("cls.predictions.transform.LayerNorm", "head.transform.norm"),
        ]
    if kind == "classes":
        rows += linear("bert.pooler.dense", "head.transform.dense", bias=True)
        rows += linear("classifier", "head.logits", bias=True)
    return rows


def encoder_names(prefix: str, model: keras.Model) -> list[Name]:
    """The rows of front and blocks of BERT and RoBERTa."""
    ours, theirs = "transformer.blocks.{i}", prefix + "encoder.layer.{i}"
    rows = [
        *layer_norm(f"{theirs}.attention.output.LayerNorm", f"{ours}.attention_join.norm"),
        *layer_norm(f"{theirs}.output.LayerNorm", f"{ours}.feed_forward_join.norm"),
    ]
    for their, our in (
        ("attention.self.query", "attention.query"),
        ("attention.self.key", "attention.key"),
        ("attention.self.value", "attention.value"),
        ("attention.output.dense", "attention.output_projection"),
        ("intermediate.dense", "feed_forward.up"),
        ("output.dense", "feed_forward.down"),
    ):
        rows += linear(f"{theirs}.{their}", f"{ours}.{our}", bias=True)
    return [
        Name(f"{prefix}embeddings.word_embeddings.weight", "front.tokens.embeddings"),
        Name(f"{prefix}embeddings.position_embeddings.weight", "front.positions.embeddings"),
        Name(f"{prefix}embeddings.token_type_embeddings.weight", "front.types.embeddings"),
        *layer_norm(f"{prefix}embeddings.LayerNorm", "front.norm"),
        *each_layer(rows, len(model.transformer.blocks)),
    ]


FAMILY = Family(
    ("bert",),
    build,
    names,
    prefix="bert.",
    # The decoder is the table of tokens, written a second time.
    ignored=(POSITION_IDS, r"^cls\.predictions\.decoder\."),
    carried=(r"^(bert\.)?pooler\.", r"^cls\.", r"^classifier\."),
    aliases=ALIASES,
)
