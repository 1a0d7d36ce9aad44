"""A misfit that does not keep its promises, or has no value for a shot, says so in one line."""

import numpy as np
import pytest

from hpcfwi.errors import DataError, RunError
from hpcfwi.inversion.misfits.base import UndefinedMisfit
from hpcfwi.inversion.misfits.correlation import Correlation
from hpcfwi.inversion.misfits.shot import ShotMisfit
from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.sampling import Tail

FINITE = np.full((4, 2), 3.0)
HOLE = np.where(np.arange(8).reshape(4, 2) == 5, np.nan, 3.0)


def compare(evaluate, predicted=FINITE, observed=None):
    """Evaluate a misfit of the user's, which is a function of the predicted gather."""

    class Own:
        def evaluate(self, predicted, *_):
            return evaluate(predicted)

    observed = np.full((4, 2), 2.0) if observed is None else observed
    return ShotMisfit("7", "own:Misfit", Own(), Tail(4, 4), observed, TimeAxis(1.0, 4))(predicted)


def undefined(_):
    raise UndefinedMisfit("it has no picks")


@pytest.mark.parametrize(
    ("evaluate", "reason"),
    [
        (lambda p: (np.inf, p), r"the misfit own:Misfit is inf for a finite gather, whose largest value is 3; .* is 2$"),
        (lambda p: (1.0, p[1:]), r"the misfit own:Misfit returned an adjoint source of shape \(3, 2\) for .* shape \(4, 2\)"),
        (lambda _: (1.0, 7), r"returned an adjoint source of shape \(\) "),
        (lambda _: (1.5, HOLE), r"is 1.5, but 1 of 8 values of its adjoint source .* nan, in sample 3 of trace 2$"),
        (lambda _: 1 / 0, r"the misfit own:Misfit fails with ZeroDivisionError: division by zero \(test_shot.py, line \d+\)$"),
        (lambda p: p, r"fails with ValueError: too many values to unpack \(expected 2\)"),
        (lambda p: (p, p), r"fails with TypeError: only .* arrays can be converted"),
    ],
    ids=["infinite", "shape", "no gather", "hole", "error", "no pair", "no number"],
)  # fmt: skip
def test_what_a_misfit_returns_is_checked(evaluate, reason):
    with pytest.raises(RunError, match=reason):
        compare(evaluate)


@pytest.mark.parametrize(
    ("predicted", "observed", "reason"),
    [
        (np.full((4, 2), np.inf), None, "the wavefield has grown without bounds"),
        (FINITE, HOLE, "the observed gather is not finite"),
    ],
)
def test_a_gather_that_is_not_finite_is_told_from_a_bad_misfit(predicted, observed, reason):
    with pytest.raises(RunError, match=f"the misfit is nan: {reason}"):
        compare(lambda p: (np.nan, p), predicted, observed)


def test_an_undefined_misfit_is_an_error_of_the_shot():
    with pytest.raises(
        DataError, match=r"^shot 7: the misfit own:Misfit is undefined for it: it has no picks. Change"
    ) as caught:
        compare(undefined)
    assert caught.value.shot == "7"
    zero = ShotMisfit("3", "correlation", Correlation(), Tail(4, 4), 0 * FINITE, TimeAxis(1.0, 4))
    with pytest.raises(
        DataError, match="shot 3: the misfit correlation is undefined for it: the observed gather is zero"
    ):
        zero(FINITE)


def test_value_and_adjoint_source_pass_through_the_processing():
    value, source = compare(lambda p: (np.float32(0.5), p.tolist()))
    assert (value, type(value)) == (0.5, float)
    np.testing.assert_array_equal(source, FINITE)
