"""[inversion]: keys of each optimiser, defaults that follow from it, and which keys a continued run may change."""

import pytest

from hpcfwi.config.inversion import KEYS_OF, LIMITS, InversionSection
from hpcfwi.config.messages import validate
from hpcfwi.errors import InputError


def load(**keys):
    return validate(InversionSection, {"bounds": [1.4, 4.0], **keys}, "fwi.toml")


def refused(**keys):
    with pytest.raises(InputError) as caught:
        load(**keys)
    first, *lines = str(caught.value).splitlines()
    assert first == "fwi.toml: one mistake"
    (line,) = lines
    return line.strip()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"step": 0.1}, 'step: is a key of optimizer = "adam", but it is "lbfgs"; take step out'),
        ({"batch": 4}, 'batch: is a key of optimizer = "adam" or "lbfgs-batch", but it is "lbfgs"; take batch out'),
        ({"misfit": {"kind": []}}, "misfit.kind: is []; it should be text in quotes"),
        (
            {"optimizer": "adam", "ftol": 0.1},
            'ftol: is a key of optimizer = "lbfgs", but it is "adam"; take ftol out',
        ),
        (
            {"optimizer": "adam", "overlap": 1},
            'overlap: is a key of optimizer = "lbfgs-batch", but it is "adam"; take overlap out',
        ),
        (
            {"optimizer": "adam", "parameter": "log_velocity"},
            'parameter: is "log_velocity", but optimizer = "adam" makes steps in km/s; take parameter out',
        ),
        (
            {"optimizer": "lbfgs-batch", "first_step": "unscaled"},
            'first_step: is "unscaled", but optimizer = "lbfgs-batch" needs a number, km/s',
        ),
        (
            {"optimizer": "lbfgs-batch", "batch": 6, "overlap": 4},
            "overlap: is 4; it should be at most half of batch, which is 6",
        ),
        (
            {"optimizer": "lbfgs-batch", "batch": 1},
            'batch: is 1; it should be at least 2 for optimizer = "lbfgs-batch"',
        ),
        (
            {"optimizer": "adam", "misfit_share": 0.1},
            "misfit_share: needs full_misfit_every, because misfits of different batches cannot be compared",
        ),
        (
            {"noise_level": 0.1, "misfit": "mine:Misfit"},
            'noise_level: needs misfit = "l2", which is an energy, but it is "mine:Misfit"',
        ),
    ],
)
def test_keys_that_do_not_fit_the_optimiser_are_refused_with_one_message(keys, message):
    assert refused(**keys) == message


def test_a_wrong_optimiser_is_one_mistake():
    message = refused(optimizer="sgd")
    assert message.startswith('optimizer: is "sgd"; it should be "lbfgs", "adam" or "lbfgs-batch"')


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam", "lbfgs-batch"])
def test_what_is_written_out_has_the_keys_of_the_optimiser_and_is_read_again(optimizer):
    section = load(optimizer=optimizer)
    written = section.model_dump(mode="json", exclude_none=True)
    assert not [key for key, names in KEYS_OF.items() if optimizer not in names and key in written]
    assert load(**written) == section


def test_the_unknowns_follow_from_the_optimiser_unless_they_are_given():
    assert load().parameter == "squared_slowness"
    assert load(optimizer="adam").parameter == "velocity"
    assert load(optimizer="lbfgs-batch", parameter="log_velocity").parameter == "log_velocity"


@pytest.mark.parametrize(
    ("keys", "shots", "batch", "overlap", "at_a_time"),
    [
        ({}, 16, 16, 0, 16),
        ({"optimizer": "adam"}, 16, 4, 0, 4),
        ({"optimizer": "adam"}, 1, 1, 0, 1),
        ({"optimizer": "adam", "batch": 7}, 5, 5, 0, 5),  # shots that failed
        ({"optimizer": "lbfgs-batch"}, 16, 8, 4, 4),
        ({"optimizer": "lbfgs-batch"}, 2, 2, 1, 1),
        ({"optimizer": "lbfgs-batch", "batch": 9, "overlap": 2}, 16, 9, 2, 5),
        ({"optimizer": "lbfgs-batch", "batch": 8, "overlap": 4}, 5, 5, 2, 2),
    ],
)
def test_sizes_of_batches(keys, shots, batch, overlap, at_a_time):
    section = load(**keys)
    assert section.batch_size(shots) == batch
    assert section.overlap_size(shots) == overlap
    assert section.shots_at_a_time(shots) == at_a_time


def test_limits_are_keys_that_only_end_the_inversion():
    assert set(load().limits) == set(LIMITS)
    assert "iterations" not in load(optimizer="adam").limits  # each step depends on them
    assert "iterations" in load(optimizer="adam", schedule="constant").limits
    assert "ftol" not in load(optimizer="lbfgs-batch").limits
