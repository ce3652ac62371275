"""Documents: what is found and what is refused; the split by name, with no text on both sides."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfbig.data import Documents, folder_documents, python_documents, split_documents


def of_texts(texts):
    return Documents([(name, lambda text=text: text) for name, text in texts.items()])


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_python_has_sources_and_topics_in_order_and_no_tests():
    documents = python_documents()
    assert list(documents.names) == sorted(set(documents.names))
    assert len(documents) > 500  # 812 in Python 3.11
    assert not any("test" in name.split("/")[:-1] for name in documents.names)
    assert not any("site-packages" in name for name in documents.names)
    # The source of the topics holds the text of them all: it would leak across the split.
    assert "pydoc_data/topics.py" not in documents.names
    name, text = documents[documents.names.index("json/decoder.py")]
    assert name == "json/decoder.py" and "class JSONDecoder" in text
    _, topic = documents[documents.names.index("pydoc_data/topics/assert")]
    assert "AssertionError" in topic


def test_a_folder_is_read_in_order_and_through_its_folders(tmp_path):
    files = {
        "b.txt": b"two\r\nlines",
        "a/Z.MD": "übel".encode(),
        "a/x.bin": b"no pattern",
        ".git/c.txt": b"hidden",
        "a/.d.txt": b"hidden",
        "image.txt": b"ab\0c",
        "none.py": b"",
    }
    documents = folder_documents(write(tmp_path, files))
    assert list(documents) == [("a/Z.MD", "übel"), ("b.txt", "two\r\nlines"), ("none.py", "")]
    assert documents.skipped == ("image.txt",)
    assert list(folder_documents(tmp_path, ["*.bin"])) == [("a/x.bin", "no pattern")]
    assert list(folder_documents(tmp_path / "b.txt")) == [("b.txt", "two\r\nlines")]


def test_a_text_is_read_when_it_is_asked_for(tmp_path):
    documents = folder_documents(write(tmp_path, {"a.txt": b"old"}))
    (tmp_path / "a.txt").write_bytes(b"new")
    assert documents[0] == ("a.txt", "new")


def test_another_encoding_is_named_or_replaced(tmp_path):
    write(tmp_path, {"a.txt": b"fine", "latin.txt": b"caf\xe9"})
    documents = folder_documents(tmp_path)
    assert documents[0][1] == "fine"
    with pytest.raises(ValueError, match=r'latin\.txt.*byte 3 is 0xe9.*errors="replace"'):
        documents[1]
    assert folder_documents(tmp_path, errors="replace")[1][1] == "caf\ufffd"
    with pytest.raises(ValueError, match="'ignore'"):
        folder_documents(tmp_path, errors="ignore")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_a_file_name_that_is_not_utf_8(tmp_path):
    write(tmp_path, {"a.txt": b"text", "caf\udce9.txt": b"more"})
    assert folder_documents(tmp_path).names == ("a.txt", "caf\\xe9.txt")


def test_no_text_is_answered_by_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder or file"):
        folder_documents(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="0 binary files.*other patterns"):
        folder_documents(tmp_path)
    write(tmp_path, {"a.txt": "utf-16".encode("utf-16")})
    with pytest.raises(FileNotFoundError, match="1 binary files.*UTF-16"):
        folder_documents(tmp_path)


names = st.lists(st.text(max_size=6), unique=True, min_size=1, max_size=30)


@settings(max_examples=30, deadline=None)
@given(names, st.data())
def test_a_document_keeps_its_side_and_no_text_is_on_both(names, data):
    texts = {name: data.draw(st.sampled_from("abcdefghijkl")) for name in names}
    # Two whose sides are known, so that none is empty: SHA-256 of "0/left" is 0.85 of the way up.
    always = {"left": "learnt", "held": "held out"}
    before = split_documents(of_texts(always), 0.5)
    assert (before.train.names, before.held_out.names) == (("left",), ("held",))
    split = split_documents(of_texts({**texts, **always}), 0.5)
    train, held_out = dict(split.train), dict(split.held_out)
    assert not set(train.values()) & set(held_out.values())
    assert len(set(train.values())) == len(train) and len(set(held_out.values())) == len(held_out)
    # Nothing is lost but texts that are there already.
    assert set(texts.values()) <= set(train.values()) | set(held_out.values())
    assert {*train, *held_out, *split.repeated} == {*texts, *always}
    assert split.held_out_bytes == sum(len(text.encode()) for text in held_out.values())
    assert split.train_bytes == sum(len(text.encode()) for text in train.values())
    # What is added moves nothing to the other side.
    more = split_documents(of_texts({"new": "a", "newer": "other", **texts, **always}), 0.5)
    assert not set(more.train.names) & set(split.held_out.names)
    assert not set(more.held_out.names) & set(split.train.names)


def test_a_text_of_both_sides_stays_held_out():
    """By SHA-256 of "0/name": left 0.85, right 0.75, held 0.20. So the held-out side is fixed."""
    split = split_documents(of_texts({"held": "same", "left": "same", "right": "other"}), 0.5)
    assert (split.train.names, split.held_out.names) == (("right",), ("held",))
    assert split.repeated == ("left",)
    assert (split.train_bytes, split.held_out_bytes) == (5, 4)


def test_the_share_and_the_seed():
    corpus = of_texts({f"{i}": f"text {i}" for i in range(2000)})
    split = split_documents(corpus, 0.1)
    # Binomial: 200 with a deviation of 13.4; within four of them.
    assert abs(len(split.held_out) - 200) < 54
    assert split.held_out.names == split_documents(corpus, 0.1).held_out.names
    other = split_documents(corpus, 0.1, seed=1).held_out.names
    assert len(set(other) & set(split.held_out.names)) < 54  # 20 by chance
    # A smaller share is part of the greater one.
    assert set(split.held_out.names) < set(split_documents(corpus, 0.3).held_out.names)
    assert "documents to train on" in split.describe()


def test_the_split_is_the_same_in_another_process():
    code = (
        "from tfbig.data import Documents, split_documents\n"
        "corpus = Documents([(f'{i}', lambda i=i: f'text {i}') for i in range(60)])\n"
        "print(*split_documents(corpus, 0.2).held_out.names)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    corpus = of_texts({f"{i}": f"text {i}" for i in range(60)})
    assert tuple(result.stdout.split()) == split_documents(corpus, 0.2).held_out.names


def test_a_side_is_not_left_empty():
    with pytest.raises(ValueError, match="both sides need one"):
        split_documents(of_texts({"a": "text"}))
    with pytest.raises(ValueError, match="between 0 and 1, and was 1"):
        split_documents(of_texts({"a": "text"}), held_out=1.0)
