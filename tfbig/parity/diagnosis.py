"""What `diagnose` found: the causes first, then the table, as text, HTML and JSON."""

import dataclasses
import html
from typing import Any

from tfbig.parity.causes.row import Cause
from tfbig.parity.report import Report


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """Why a loop differs from `fit`.

    Attributes:
        causes: that reproduce the loop's numbers, most certain first; empty for a correct loop.
        unexplained: stages of the step that differ for no reason in the catalogue.
        parted: where the two first part, if something is unexplained.
        ruled_out: what was tried and is not the cause, if something is unexplained.
        notes: harmless differences, and what limits the judgement.
        gradients: the table: `fit`'s gradients beside the loop's in the first step that differs.
    """

    causes: tuple[Cause, ...]
    unexplained: tuple[str, ...]
    parted: str | None
    ruled_out: tuple[str, ...]
    notes: tuple[str, ...]
    gradients: Report | None

    @property
    def matches(self) -> bool:
        """Whether the loop does what `fit` does."""
        return not self.causes and not self.unexplained

    @property
    def verdict(self) -> str:
        """The result in one line."""
        if self.causes:
            first = self.causes[0]
            more = f", and {len(self.causes) - 1} more" if len(self.causes) > 1 else ""
            return f"The loop differs from model.fit: {first.title} [{first.id}]{more}."
        if self.unexplained:
            return "The loop differs from model.fit, for no cause in the catalogue."
        return "The loop does what model.fit does."

    def __str__(self) -> str:
        lines = [self.verdict]
        for cause in self.causes:
            lines += ["", f"{cause.where or 'loop'}: {cause.id}: {cause.title}"]
            lines.append(f"    evidence: {cause.evidence}" + _step(cause))
            lines.append(f"    mend:     {cause.mend}")
        for said in self.unexplained:
            lines += ["", f"not explained: {said}"]
        if self.parted:
            lines += [f"    the two first part at {self.parted}"]
        if self.ruled_out:
            lines += [f"    ruled out: {', '.join(self.ruled_out)}"]
        lines += ["", *(f"note: {note}" for note in self.notes)] if self.notes else []
        if self.gradients is not None and not self.matches:
            lines += ["", str(self.gradients)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_html(self) -> str:
        """The diagnosis for a notebook; what comes from the user's files is escaped."""
        colour = "#1a7f37" if self.matches else "#cf222e"
        parts = [f"<p><b style='color:{colour}'>{html.escape(self.verdict)}</b></p>"]
        for cause in self.causes:
            parts.append(
                f"<p><b>{html.escape(cause.id)}</b> {html.escape(cause.title)}"
                f" <code>{html.escape(cause.where or '')}</code><br>"
                f"evidence: {html.escape(cause.evidence + _step(cause))}<br>"
                f"mend: <code>{html.escape(cause.mend)}</code></p>"
            )
        parts += [f"<p>not explained: {html.escape(said)}</p>" for said in self.unexplained]
        if self.parted:
            parts.append(f"<p>the two first part at {html.escape(self.parted)}</p>")
        if self.ruled_out:
            parts.append(f"<p>ruled out: {html.escape(', '.join(self.ruled_out))}</p>")
        parts += [f"<p>note: {html.escape(note)}</p>" for note in self.notes]
        if self.gradients is not None and not self.matches:
            parts.append(self.gradients.to_html())
        return "\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as plain values."""
        return {
            "matches": self.matches,
            "causes": [dataclasses.asdict(cause) for cause in self.causes],
            "unexplained": list(self.unexplained),
            "parted": self.parted,
            "ruled_out": list(self.ruled_out),
            "notes": list(self.notes),
            "gradients": None if self.gradients is None else self.gradients.to_json(),
        }


def _step(cause: Cause) -> str:
    return f" (first in step {cause.step})" if cause.step > 1 else ""
