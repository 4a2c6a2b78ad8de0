"""What became of each layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class LayerChange:
    """What became of a layer, and why."""

    name: str
    kind: str
    """binary, real, changed or removed."""
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name}: {', '.join([self.kind, *self.notes])}"


class Report:
    """The changes of a network, a line a layer, in the order of their use; `print(report)` shows them."""

    def __init__(self) -> None:
        self._changes: dict[str, LayerChange] = {}

    def __iter__(self) -> Iterator[LayerChange]:
        return iter(self._changes.values())

    def __len__(self) -> int:
        return len(self._changes)

    def __getitem__(self, name: str) -> LayerChange:
        return self._changes[name]

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def note(self, name: str, kind: str, *notes: str) -> None:
        """Adds to what is known of a layer; the first kind stays."""
        self._changes.setdefault(name, LayerChange(name, kind)).notes.extend(notes)

    def named(self, kind: str) -> list[str]:
        """Names of the layers that became so."""
        return [change.name for change in self if change.kind == kind]

    @property
    def summary(self) -> str:
        """One line: how many layers are binary, and which are real."""
        binary, real = self.named("binary"), [change for change in self if change.kind == "real"]
        kept = "; ".join(f"{change.name} ({', '.join(change.notes)})" for change in real)
        return f"{len(binary)} of {len(binary) + len(real)} layers are binary" + (f", real: {kept}" if kept else "")
