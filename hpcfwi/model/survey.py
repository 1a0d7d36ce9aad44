"""The survey: shots, their sources and receivers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import DataError, InputError
from hpcfwi.model.grid import Domain

__all__ = ["Shot", "Survey"]


@dataclass(frozen=True, eq=False)
class Shot:
    """One source and the receivers that listened to it.

    Parameters
    ----------
    name
        Unique in the survey; letters, digits, ``-``, ``_`` and ``.``.
    source
        Position, shape (ndim,), m.
    receivers
        Positions, shape (n, ndim), m.
    """

    name: str
    source: NDArray[np.float64]
    receivers: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Survey:
    """Shots in survey order."""

    shots: tuple[Shot, ...]

    def __len__(self) -> int:
        return len(self.shots)

    @property
    def most_receivers(self) -> int:
        return max(len(shot.receivers) for shot in self.shots)

    def without(self, names: Collection[str]) -> Survey:
        """The survey without some shots.

        Raises
        ------
        InputError
            If there is no such shot, or none would be left.
        """
        known, left_out = [shot.name for shot in self.shots], set(names)
        unknown = sorted(left_out.difference(known))
        if unknown:
            raise InputError(f"data.exclude: there is no shot {unknown[0]!r}; there are {_some(known)}")
        if known and left_out.issuperset(known):
            raise InputError("data.exclude: leaves no shot of the survey")
        return Survey(tuple(shot for shot in self.shots if shot.name not in left_out))

    def check(self, domain: Domain) -> None:
        """Raise where a source or receiver is outside the physical domain.

        Raises
        ------
        DataError
            Naming the shot, the position and the domain's limits.
        InputError
            If there is no shot at all.
        """
        if not self.shots:
            raise InputError("the survey is empty: there is no shot in it")
        limits = ", ".join(
            f"{axis} {low:g} to {high:g} m"
            for axis, low, high in zip(domain.axes, domain.origin, domain.last, strict=True)
        )
        strayed = ~domain.contains(np.stack([shot.source for shot in self.shots]))
        sound = None
        for shot, astray in zip(self.shots, strayed, strict=True):
            if len(shot.receivers) == 0:
                raise DataError(shot.name, "has no receivers")
            if not astray and shot.receivers is sound:
                continue  # a spread that all shots have is looked at once
            sound = shot.receivers
            for what, positions in (("source", shot.source[None]), ("receiver", shot.receivers)):
                outside = np.flatnonzero(~domain.contains(positions))
                if outside.size:
                    place = ", ".join(f"{value:g}" for value in positions[outside[0]])
                    more = f" (and {outside.size - 1} more)" if outside.size > 1 else ""
                    number = f" {outside[0] + 1}" if what == "receiver" else ""
                    raise DataError(
                        shot.name,
                        f"{what}{number} at ({place}) m{more} is outside the model, which covers {limits}",
                    )


def _some(names: list[str]) -> str:
    """The first and the last of them."""
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:3])}, ... {names[-1]}"
