"""Images and axes of models in the report."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from hpcfwi.model.grid import Domain
from hpcfwi.reporting.plotting import slices_of
from hpcfwi.reporting.report.data import RunModels
from hpcfwi.reporting.report.models import Frame, Scale, depths_group, models_group

SPAN = np.linspace(2.0, 4.0, 1000)[None]


def picture(uri):
    """Colours of an image."""
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"), dtype=int)


def group_of(domain, values):
    return models_group(RunModels(domain, values, True))


@pytest.mark.parametrize("colours", ["viridis", "RdBu"])
def test_colours_are_those_of_matplotlib(colours):
    drawn = picture(Scale(colours, (2.0, 4.0), "", "").paint(SPAN))
    expected = 255 * matplotlib.colormaps[colours]((SPAN - 2.0) / 2.0)[..., :3]
    assert np.abs(drawn - expected).max() < 4


def test_values_beyond_the_limits_have_the_colours_of_the_limits():
    drawn = picture(Scale("viridis", (2.0, 4.0), "", "").paint(np.array([[-1.0, 2.0, 4.0, 9.0]])))
    assert (drawn[0, 0] == drawn[0, 1]).all()
    assert (drawn[0, 2] == drawn[0, 3]).all()


def test_depth_points_down_and_the_image_lies_within_the_axes():
    domain = Domain((40, 30), (10.0, 10.0), (0.0, 0.0))
    values = np.broadcast_to(np.linspace(2.0, 4.0, 30), (40, 30))
    (panel,) = group_of(domain, values).panels
    drawn = picture(panel.image)
    assert drawn.shape == (30, 40, 3)
    assert (drawn[0] == drawn[0, 0]).all()
    assert drawn[-1, 0, 0] > 240 > 100 > drawn[0, 0, 0]  # yellow is fast, violet slow
    (plane,) = slices_of(domain)
    assert plane.extent == pytest.approx((-0.005, 0.395, 0.295, -0.005))
    left, top, width, height = panel.frame.box
    assert width * panel.frame.inches[0] / (height * panel.frame.inches[1]) == pytest.approx(4 / 3)
    assert 0 < left < left + width < 100
    assert 0 < top < top + height < 100
    assert panel.alt.endswith("from 2 to 4 km/s; distance −0.005 to 0.395 km, depth −0.005 to 0.295 km")


def test_cells_without_a_value_are_grey_and_large_models_are_thinned():
    domain = Domain((5000, 700), (10.0, 10.0), (0.0, 0.0))
    values = np.full(domain.shape, 2.5)
    values[:2500] = np.nan
    (panel,) = group_of(domain, values).panels
    drawn = picture(panel.image)
    assert max(drawn.shape) <= 600
    assert (drawn[:, 0] == 190).all()
    assert len(panel.image) < 50_000


def test_a_volume_has_three_slices():
    domain = Domain((13, 11, 9), (100.0, 100.0, 100.0), (0.0, 0.0, 0.0))
    panels = group_of(domain, np.arange(13.0 * 11 * 9).reshape(domain.shape)).panels
    assert [picture(panel.image).shape[:2] for panel in panels] == [(9, 13), (9, 11), (11, 13)]
    assert [panel.title for panel in panels] == [
        f"Final model, at {where} km" for where in ("y = 0.5", "x = 0.6", "depth 0.4")
    ]
    assert ["depth" in panel.frame.extent for panel in panels] == [True, True, False]


def test_a_volume_has_maps_at_four_depths():
    domain = Domain((13, 11, 11), (100.0, 100.0, 100.0), (0.0, 0.0, 0.0))
    values = np.zeros(domain.shape) + np.arange(11.0)
    panels = depths_group(RunModels(domain, values, True, true=values)).panels
    depths = ("0.2", "0.4", "0.6", "0.8")
    names = [f"{model}, at depth {depth} km" for model in ("True model", "Final model") for depth in depths]
    assert [panel.title for panel in panels] == names
    assert {picture(panel.image).shape[:2] for panel in panels} == {(11, 13)}
    assert depths_group(RunModels(Domain((13, 11), (100.0, 100.0), (0.0, 0.0)), values[:, :, 0], True)) is None


@pytest.mark.parametrize("shape", [(600, 20), (20, 600), (60, 50, 3)])
def test_axes_of_flat_and_of_tall_models_have_room_for_their_labels(shape):
    domain = Domain(shape, (10.0,) * len(shape), (0.0,) * len(shape))
    for plane in slices_of(domain):
        frame = Frame.draw(domain, plane)
        assert max(frame.inches) < 7.5
        assert frame.box[0] / 100 * frame.inches[0] == pytest.approx(0.62)
