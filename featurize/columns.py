"""What a feature column is, and how it behaves when A and B are exchanged."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

# From where a number is seen: the prompt, one answer, both against each other, or both without regard to their order.
View = Literal["prompt", "a", "b", "difference", "ratio", "pair"]
_EXCHANGED: dict[View, View] = {"a": "b", "b": "a"}
_ANTISYMMETRIC: tuple[View, ...] = ("difference", "ratio")


@dataclass(frozen=True)
class Feature:
    """A number read off one text or a pair of texts: its name, its unit, and what it means."""

    name: str
    unit: str
    description: str


@dataclass(frozen=True)
class Column:
    """A feature seen from one side of the pair: the prompt, an answer, or both answers together."""

    family: str
    feature: str
    view: View
    unit: str
    description: str

    @property
    def name(self) -> str:
        """The name in files and models: family, feature and view."""
        return f"{self.family}_{self.feature}_{self.view}"

    def as_dict(self) -> dict[str, str]:
        """The entry that the manifest carries."""
        return {"name": self.name, **asdict(self)}


def columns_of(family: str, features: Sequence[Feature], views: Sequence[View]) -> list[Column]:
    """One column per view and feature, in that order."""
    return [
        Column(family, each.name, view, "ratio" if view == "ratio" else each.unit, each.description)
        for view in views
        for each in features
    ]


def exchange(columns: Sequence[Column]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Permutation (d,) and signs (d,) such that a swapped record's features are `features[:, permutation] * signs`.

    Raises KeyError if a column of A stands without its counterpart of B.
    """
    index = {(column.family, column.feature, column.view): n for n, column in enumerate(columns)}
    permutation = [index[c.family, c.feature, _EXCHANGED.get(c.view, c.view)] for c in columns]
    signs = [-1.0 if column.view in _ANTISYMMETRIC else 1.0 for column in columns]
    return np.array(permutation, dtype=np.int64), np.array(signs, dtype=np.float32)
