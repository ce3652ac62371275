"""The text of a model's answer while it comes, id by id."""

from collections.abc import Callable


class TokenStream:
    """Turns ids into text as they come, and gives only text that is final.

    A character of several bytes can be several tokens: nothing of it is given before its last. The
    pieces, joined and with `flush`, are the text of all ids. (`tokenizers.decoders.DecodeStream`
    does the same, but keeps what is incomplete at the end to itself.) One exception: of byte tokens
    of SentencePiece in a row that are no UTF-8, `decode` replaces all, and a stream has by then
    given the good ones.

    Args:
        decode: the text of some ids.

    >>> stream = TokenStream(lambda ids: bytes(ids).decode("utf-8", errors="replace"))
    >>> stream.push(0xC3), stream.push(0xA9), stream.flush()
    ('', 'é', '')
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        # The ids of the piece before, so that a piece is decoded in its place and not as the start
        # of a text, where SentencePiece removes a space; then those whose text is not yet given.
        self._before: list[int] = []
        self._pending: list[int] = []

    def push(self, number: int) -> str:
        """The text that became final with this id; it may be empty."""
        self._pending.append(number)
        new = self._new_text()
        if not new or new.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        self._before, self._pending = self._pending, []
        return new

    def flush(self) -> str:
        """What is left at the end: a replacement character for an incomplete one. Starts anew."""
        new = self._new_text() if self._pending else ""
        self._before, self._pending = [], []
        return new

    def _new_text(self) -> str:
        return self._decode(self._before + self._pending)[len(self._decode(self._before)) :]
