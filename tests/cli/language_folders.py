"""Small checkpoints for the tests of the verbs, written without torch; and calls of the verbs."""

import json

import keras
import numpy as np
import pytest
import tokenizers

from tfbig.cli.main import main
from tfbig.interop.known import path_of
from tfbig.interop.loading import save
from tfbig.interop.tokenizer import SpecialTokens, Tokenizer
from tfbig.models import language_model

LINES = ["the quick brown fox jumps over the lazy dog", "hello world, this is a test"] * 4
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def tokenizer(chat_template=None):
    """A byte-level BPE of 300 tokens; the first ends a text."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(LINES, trainer)
    end = backend.token_to_id("<|end|>")
    return Tokenizer(backend, SpecialTokens(eos_id=end), frozenset({end}), chat_template)


def model(seed=0):
    """A language model whose weights are wide, so that its texts are not one token repeated."""
    keras.utils.set_random_seed(seed)
    made = language_model(300, num_layers=2, num_heads=2, hidden_dim=16, num_key_value_heads=1)
    made.build()
    for variable in made.variables:
        if len(variable.shape) > 1:
            variable.assign(np.random.default_rng(seed).normal(0, 0.3, variable.shape))
    return made


def write(folder, chat_template=TEMPLATE):
    """A Llama of two layers with its tokenizer, as a Hugging Face folder."""
    save(model(), folder, tokenizer(chat_template))
    return folder


def t5(folder):
    """A T5 of one layer with its tokenizer."""
    from tfbig.interop.families.t5 import FAMILY

    config = {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "vocab_size": 300,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 2,
        "decoder_start_token_id": 0,
        "tie_word_embeddings": True,
    }
    keras.utils.set_random_seed(0)
    made = FAMILY.build(config)
    made.build()
    save(made, folder, tokenizer(), config)
    return folder


def edit(path, **changes):
    """Changes fields of a JSON file."""
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, **changes}))


def real(name):
    """A model that comes as a package."""
    try:
        return str(path_of(name))
    except ImportError as error:
        pytest.skip(str(error))


def call(capsys, *arguments, status=0):
    """What a command prints; its exit status is checked."""
    capsys.readouterr()
    assert main(["tfbig", *map(str, arguments)]) == status, capsys.readouterr().err
    return capsys.readouterr()


def refused(capsys, *arguments):
    """The one line that a wrong call gets."""
    said = call(capsys, *arguments, status=2).err
    assert said.startswith("tfbig: ") and said.count("\n") == 1, said
    return said
