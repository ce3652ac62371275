"""Vocabularies of a few hundred tokens, trained on a few lines, in the files of each family."""

import io
import json

import tokenizers

LINES = [
    "hello world this is a test of sentence piece",
    "the quick brown fox jumps over the lazy dog",
    "日本語のテキスト です",
    "numbers 123 456 7890",
    "def f(x): return x + 1",
    "  indented   code",
    "été naïve café",
    "aaa aaaa aaaaa aa abab ababab I'll don't",
] * 3
FRENCH = ["bonjour le monde ceci est un test", "le renard brun saute par dessus le chien"] * 5
TEXTS = [
    "",
    "hello world",
    " hello",
    "  two  spaces ",
    "日本語 hello",
    "emoji 😀 x",
    "a\nb\n\nc\t",
    "naïve CAFÉ cafe\N{COMBINING ACUTE ACCENT}",
    "don't I'LL 123 4567 ² ½",
    "ﬁ ①\u00a0nbsp",
    "def f(x):\n    return x**2  # ok",
    "x</s> y <s>hi</s>",
    "<|endoftext|> hello<|im_start|>user",
    "<extra_id_0> a <extra_id_1>",
    "[MASK] is [SEP] x",
]
END = "<|endoftext|>"


def bpe_files(special, suffix=None):
    """vocab.json and merges.txt of a byte-level BPE."""
    options = {} if suffix is None else {"end_of_word_suffix": suffix}
    unk = {} if suffix is None else {"unk_token": special[-1]}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(**options, **unk))
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    backend.pre_tokenizer = byte_level(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=byte_level.alphabet(),
        show_progress=False,
        **options,
    )
    backend.train_from_iterator(LINES, trainer)
    model = json.loads(backend.to_str())["model"]
    merges = "".join(" ".join(pair) + "\n" for pair in model["merges"])
    return {"vocab.json": json.dumps(model["vocab"]), "merges.txt": "#version: 0.2\n" + merges}


def wordpiece_file():
    """vocab.txt of a WordPiece."""
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = tokenizers.normalizers.BertNormalizer()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=200,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        show_progress=False,
    )
    backend.train_from_iterator(LINES, trainer)
    vocabulary = backend.get_vocab()
    return {"vocab.txt": "\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n"}


def sentencepiece_model(lines=LINES, **options):
    """The bytes of a SentencePiece model."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        minloglevel=2,
        hard_vocab_limit=False,
        **options,
    )
    return out.getvalue()


LLAMA = {
    "model_type": "bpe",
    "vocab_size": 400,
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
}
GEMMA = {
    **LLAMA,
    "add_dummy_prefix": False,
    **{"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3},
    **{"pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>"},
    "user_defined_symbols": ["<start_of_turn>", "▁▁", "▁▁▁", "\n\n"],
}
T5 = {
    "model_type": "unigram",
    "vocab_size": 120,
    "pad_id": 0,
    "eos_id": 1,
    "unk_id": 2,
    "bos_id": -1,
}


def marian_files():
    """Two SentencePiece models of other pieces, and one vocabulary of both."""
    import sentencepiece

    models = [sentencepiece_model(vocab_size=90), sentencepiece_model(FRENCH, vocab_size=80)]
    pieces = set()
    for model in models:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        pieces |= {processor.id_to_piece(i) for i in range(processor.get_piece_size())}
    listed = ["</s>", "<unk>", *sorted(pieces - {"<s>", "</s>", "<unk>"}), ">>fra<<", "<pad>"]
    vocabulary = json.dumps({token: number for number, token in enumerate(listed)})
    return {"source.spm": models[0], "target.spm": models[1], "vocab.json": vocabulary}


def write(folder, files, config):
    """Writes files and a tokenizer_config.json into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
