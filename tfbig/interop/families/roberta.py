"""RoBERTa and XLM-RoBERTa: BERT's blocks, other positions and other heads.

Sources: Liu et al., 2019 (arXiv:1907.11692); Conneau et al., 2019 (arXiv:1911.02116). Positions
count only tokens that are no padding, and the table's first rows, up to that of padding, belong to
no token. See `bert.py` for what a checkpoint becomes and what is left out.
"""

import keras

from tfbig.interop.families import bert
from tfbig.interop.family import Config, Family, num_classes, option
from tfbig.interop.names import Name, layer_norm, linear
from tfbig.interop.stored_tensor import CheckpointError
from tfbig.models import Classifier, CountingTokenFront, LearnedPositions, TiedHead, Transform


def build(config: Config) -> keras.Model:
    """The network of a config."""
    hidden_dim = option(config, "hidden_size", 768)
    pad_id = option(config, "pad_token_id", 1, least=0)
    # All rows of the table, of which a text cannot have the first.
    rows = option(config, "max_position_embeddings", 512)
    if pad_id >= rows - 1:
        raise CheckpointError(
            f"config.json: with pad_token_id {pad_id} no position is left of the {rows} by "
            f"max_position_embeddings: it is of another model, or damaged."
        )
    positions = LearnedPositions(
        rows - pad_id - 1, hidden_dim, offset=pad_id + 1, initializer=bert.start(config)
    )
    front = CountingTokenFront(
        option(config, "vocab_size", 50265),
        hidden_dim,
        positions,
        pad_id=pad_id,
        **bert.front_options(config),
    )
    head = TiedHead(
        bias_size=front.vocabulary_size,
        # By its code the exact GELU, whatever hidden_act is.
        transform=Transform(hidden_dim, "gelu", bert.norm(config)),
    )
    dropout = bert.classifier_dropout(config)
    classifier = Classifier(
        num_classes(config), Transform(hidden_dim, "tanh", dropout=dropout), dropout
    )
    return bert.assembled(config, front, bert.transformer(config), head, classifier)


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names."""
    kind = bert.task(config)
    rows = bert.encoder_names("" if kind == "states" else "roberta.", model)
    if kind == "tokens":
        rows += [
            Name("lm_head.bias", "head.bias"),
            *linear("lm_head.dense", "head.transform.dense", bias=True),
            *layer_norm("lm_head.layer_norm", "head.transform.norm"),
        ]
    if kind == "classes":
        rows += linear("classifier.dense", "head.transform.dense", bias=True)
        rows += linear("classifier.out_proj", "head.logits", bias=True)
    return rows


FAMILY = Family(
    ("roberta", "xlm-roberta"),
    build,
    names,
    prefix="roberta.",
    ignored=(bert.POSITION_IDS, r"^lm_head\.decoder\."),
    carried=(r"^(roberta\.)?pooler\.", r"^lm_head\.", r"^classifier\."),
    aliases=bert.ALIASES,
)
