"""Which tokens of a conversation the assistant wrote: the mask of fine-tuning on answers.

No template says it, so it is found from outside: the text up to a turn of the assistant, rendered
with the generation prompt, is what the model is given; the text with that turn is what it is to
make of it; what is between the two is the answer.
"""

from collections.abc import Iterable, Mapping, Sequence, Set

from tfbig.interop.chat import ChatTemplateError, Conversation, Message

Span = tuple[int, int]


def renderings_needed(messages: Sequence[Message]) -> list[Conversation]:
    """The whole conversation; then, for each turn of the assistant, it up to it and with it.

    >>> hi, hello = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
    >>> [(len(c.messages), c.add_generation_prompt) for c in renderings_needed([hi, hello])]
    [(2, False), (1, True), (2, False)]
    """
    needed = [Conversation(messages)]
    for index, message in enumerate(messages):
        if isinstance(message, Mapping) and message.get("role") == "assistant":
            needed.append(Conversation(messages[:index], add_generation_prompt=True))
            needed.append(Conversation(messages[: index + 1]))
    return needed


def answer_spans(texts: Sequence[str]) -> list[Span]:
    """Where the answers are in the text, in characters.

    Args:
        texts: the renderings of `renderings_needed`, in its order.

    Raises:
        ChatTemplateError: if a shorter rendering is not the start of the whole.

    >>> answer_spans(["Q: Hi A: Hello.", "Q: Hi A:", "Q: Hi A: Hello."])
    [(8, 15)]
    """
    whole, parts = texts[0], texts[1:]
    for number, part in enumerate(parts):
        if not whole.startswith(part):
            kind = "up to" if number % 2 == 0 else "with"
            at = next((i for i, (a, b) in enumerate(zip(whole, part, strict=False)) if a != b), 0)
            raise ChatTemplateError(
                f"The chat template does not only append: the conversation {kind} answer "
                f"{number // 2} is no prefix of the whole; they part at character {at}, "
                f"{part[at : at + 40]!r} and {whole[at : at + 40]!r}. Train on one answer at a "
                f"time: give the conversation up to that answer."
            )
    return [(len(a), len(b)) for a, b in zip(parts[::2], parts[1::2], strict=True)]


def answer_mask(
    ids: Sequence[int], offsets: Sequence[Span], spans: Iterable[Span], special: Set[int]
) -> list[int]:
    """1 on the tokens of the answers, each up to and with its last special token.

    Args:
        ids: of the whole conversation.
        offsets: the (start, end) of each token in the text, in characters.
        spans: of the answers, in characters.
        special: the ids that can end a turn. What a template writes behind the last of them,
            mostly a newline, is not the model's to say.

    >>> answer_mask([7, 8, 2, 9], [(0, 2), (2, 4), (4, 5), (5, 6)], [(2, 6)], {2})
    [0, 1, 1, 0]
    """
    mask = [0] * len(ids)
    for start, end in spans:
        inside = [i for i, (a, _) in enumerate(offsets) if start <= a < end]
        last = max((i for i in inside if ids[i] in special), default=None)
        for i in inside:
            mask[i] = int(last is None or i <= last)
    return mask
