"""Conversations: a file read line by line, rows with weight on answers alone, cuts at a turn."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfbig.data import (
    EncodedConversations,
    conversation_rows,
    encode_conversations,
    read_conversations,
)


def chat(*contents, system=None):
    """A conversation of user and assistant in turn."""
    head = [] if system is None else [{"role": "system", "content": system}]
    roles = ("user", "assistant")
    return head + [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]


def encode_chat(messages):
    """A template by hand: 1, 2 or 3 for the role, the letters, 9 for the end of the turn."""
    ids, is_answer = [], []
    for message in messages:
        answer = message["role"] == "assistant"
        letters = [ord(letter) for letter in message["content"]]
        ids += [{"system": 1, "user": 2, "assistant": 3}[message["role"]], *letters, 9]
        is_answer += [False, *[answer] * len(letters), answer]
    return ids, is_answer


def test_rows_by_hand():
    encoded = encode_conversations([chat("A", "BC")], encode_chat, length=8)
    assert encoded.ids == ([2, 65, 9, 3, 66, 67, 9],)
    dataset, steps = conversation_rows(encoded, length=8, batch_size=1)
    ((inputs, targets, weights),) = dataset
    assert steps == 1
    assert inputs["token_ids"].numpy().tolist() == [[2, 65, 9, 3, 66, 67, 0, 0]]
    assert targets.numpy().tolist() == [[65, 9, 3, 66, 67, 9, 0, 0]]
    assert weights.numpy().tolist() == [[0, 0, 0, 1, 1, 1, 0, 0]]
    assert inputs["segment_ids"].numpy().tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]]
    assert inputs["positions"].numpy().tolist() == [[0, 1, 2, 3, 4, 5, 0, 0]]


def naive(encoded):
    """Each conversation's `(input, target, weight)`, sorted."""
    return sorted(
        list(zip(ids[:-1], ids[1:], map(float, answers[1:]), strict=True))
        for ids, answers in zip(encoded.ids, encoded.is_answer, strict=True)
    )


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(1, 4).flatmap(
        lambda turns: st.lists(st.text("abc", max_size=3), min_size=2 * turns, max_size=2 * turns)
    ), min_size=1, max_size=6),
    st.integers(8, 40), st.integers(1, 3), st.integers(0, 3),
)  # fmt: skip
def test_each_conversation_is_there_once_in_each_epoch(contents, length, batch_size, seed):
    encoded = encode_conversations(
        [chat("x", "y"), *(chat(*c) for c in contents)], encode_chat, length
    )
    dataset, steps = conversation_rows(encoded, length, batch_size, seed, epochs=2)
    batches = list(dataset)
    assert len(batches) == 2 * steps
    for epoch in (batches[:steps], batches[steps:]):
        seen = []
        for inputs, targets, weights in epoch:
            segments = inputs["segment_ids"].numpy()
            for row in range(batch_size):
                for segment in range(1, segments[row].max() + 1):
                    here = segments[row] == segment
                    columns = (inputs["token_ids"], targets, weights)
                    seen.append(
                        list(zip(*(c.numpy()[row][here].tolist() for c in columns), strict=True))
                    )
                    positions = inputs["positions"].numpy()[row][here]
                    assert positions.tolist() == list(range(here.sum()))
        assert sorted(seen) == naive(encoded)


def test_what_is_too_long_is_cut_at_a_turn_or_dropped():
    long = chat("aaaa", "bbbb", "cc", "dd", system="s")
    # 3 of the system, 6 and 6, 4 and 4: 23 tokens, in a row of 22.
    assert encode_conversations([long], encode_chat, 22).shortened == 0
    encoded = encode_conversations([long, chat("a" * 50, "b")], encode_chat, 21)
    assert (encoded.shortened, encoded.dropped) == (1, 1)
    assert encoded.ids == (tuple_of("s", "cc", "dd"),)
    assert "1 cut from the left, 1 dropped" in encoded.describe()
    assert "11 tokens, 3 of them answers" in encoded.describe()
    with pytest.raises(ValueError, match="None of 1 conversations.*greater length"):
        encode_conversations([chat("a" * 50, "b")], encode_chat, 20)


def tuple_of(system, user, assistant):
    return encode_chat(chat(user, assistant, system=system))[0]


def test_a_cut_that_leaves_no_answer_is_not_made():
    """The last question has no answer: without the first turn nothing would be learnt."""
    encoded = encode_conversations([chat("a" * 9, "b", "c"), chat("q", "r")], encode_chat, 10)
    assert (len(encoded.ids), encoded.shortened, encoded.dropped) == (1, 0, 1)


def test_epochs_differ_and_seeds_repeat():
    chats = [chat(f"{i}", f"{i * i}") for i in range(30)]
    encoded = encode_conversations(chats, encode_chat, 16)

    def targets(seed):
        dataset, steps = conversation_rows(encoded, 16, 2, seed, epochs=2)
        arrays = [batch[1].numpy() for batch in dataset]
        return np.stack(arrays[:steps]), np.stack(arrays[steps:])

    (first, second), (again, _), (other, _) = targets(0), targets(0), targets(1)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second) and not np.array_equal(first, other)


def test_wrong_arguments():
    encoded = EncodedConversations(([1, 2, 3],), ([False, True, True],), 0, 0)
    with pytest.raises(ValueError, match="takes 2 places, and a row has 1"):
        conversation_rows(encoded, length=1, batch_size=1)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        conversation_rows(encoded, length=2, batch_size=0)
    with pytest.raises(ValueError, match="3 ids and a mask of 1"):
        encode_conversations([chat("a", "b")], lambda messages: ([1, 2, 3], [True]), 8)


def test_both_forms_of_a_line(tmp_path):
    path = tmp_path / "chats.jsonl"
    lines = [{"messages": chat("a", "b"), "id": 3}, chat("ü\u2028", "d", system="s")]
    path.write_bytes(b"\n\r\n".join(json.dumps(x, ensure_ascii=False).encode() for x in lines))
    assert read_conversations(path) == [chat("a", "b"), chat("ü\u2028", "d", system="s")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3: Expecting"),
        ("3", "line 3: There is no list of messages"),
        ('{"text": "a"}', "There is no list of messages"),
        ("[3]", "Message 1 is not an object"),
        ('[{"role": "bot", "content": "a"}]', "Message 1 has the role 'bot', not one of system"),
        ('[{"role": ["user"], "content": "a"}]', "Message 1 has the role"),
        ('[{"role": "user"}]', "Message 1 has no content"),
        ('[{"role": "user", "content": "a"}]', "no message of the assistant"),
        ('[{"role": "assistant", "content": "\\ud800"}]', "surrogates"),
        ("[" * 100_000, "line 3: "),
        (b"\xff", "line 3: 'utf-8' codec"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "chats.jsonl"
    good = json.dumps(chat("a", "b")).encode()
    path.write_bytes(good + b"\n\n" + (line if isinstance(line, bytes) else line.encode()))
    with pytest.raises(ValueError, match=message) as caught:
        read_conversations(path)
    assert 'Expected is {"messages"' in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("chat") / "chats.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="chats.jsonl"):
        read_conversations(path)
