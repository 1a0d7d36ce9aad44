"""Shots of a known length in place of the kernels, for studies of everything around them."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.inversion.misfit import FunctionalGradient

__all__ = ["SleepingFields", "StandIn"]

# What is minimised: its Hessian's eigenvalues reach from 1 to this, so that L-BFGS-B has something to do for a while.
CONDITION = 100.0
# (s/km)^2
TARGET = 0.25


@dataclass(frozen=True)
class StandIn:
    """Shots that sleep. All else is real: solver, models, data and gradients of the same size go the same ways.

    Parameters
    ----------
    seconds
        Mean length of a shot.
    spread
        Standard deviation over the mean of their lengths, which have a log-normal distribution.
    """

    seconds: float
    spread: float = 0.0

    @classmethod
    def parse(cls, text: str) -> StandIn:
        """Understand ``SECONDS`` or ``SECONDS:SPREAD``.

        Raises
        ------
        InputError
            If it is neither.
        """
        mean, _, spread = text.partition(":")
        try:
            found = cls(float(mean), float(spread or 0))
        except ValueError:
            found = cls(math.nan)
        if not (0 <= found.seconds < math.inf and 0 <= found.spread <= 10):
            raise InputError(
                f"--stand-in {text}: should be the mean length of a shot in seconds, and perhaps the standard deviation over "
                "the mean: --stand-in 2 or --stand-in 2:0.25"
            )
        return found

    def __str__(self) -> str:
        spread = f", standard deviation {100 * self.spread:g} %, log-normal" if self.spread else ""
        return f"shots that sleep for {self.seconds:g} s{spread}"

    def length(self, *names: str) -> float:
        """Seconds of the shot of this name; the same each time."""
        if not self.spread or not self.seconds:
            return self.seconds
        number = int.from_bytes(hashlib.blake2b("\0".join(names).encode(), digest_size=7).digest(), "big")
        normal = NormalDist().inv_cdf((number + 0.5) / 256**7)
        variance = math.log1p(self.spread**2)
        return self.seconds * math.exp(math.sqrt(variance) * normal - variance / 2)


class SleepingFields:
    """Takes the place of :class:`hpcfwi.solver.fields.Wavefields` in a worker.

    Parameters
    ----------
    stand_in
        How long it sleeps.

    Attributes
    ----------
    kernel_seconds
        Time spent asleep so far.
    """

    def __init__(self, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self.kernel_seconds = 0.0
        self._m: NDArray = np.zeros(0)

    def set_model(self, m: NDArray) -> None:
        """Use this squared slowness."""
        self._m = np.asarray(m, dtype=np.float64)

    def evaluate(self, name: str) -> FunctionalGradient:
        """Sleep; then half the squares of what is missing to a uniform model of 2 km/s, each cell with a weight of its own."""
        started = time.perf_counter()
        time.sleep(self.stand_in.length(name))
        self.kernel_seconds += time.perf_counter() - started
        weight = np.linspace(1.0, CONDITION, self._m.size).reshape(self._m.shape)
        rest = self._m - TARGET
        return FunctionalGradient(0.5 * float((weight * rest**2).sum()), weight * rest)
