"""The figures of a run: their content, as matplotlib's own objects have it, and their files."""

from __future__ import annotations

import functools
import itertools
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

from hpcfwi.errors import StagingError
from hpcfwi.inversion.history import Row
from hpcfwi.inversion.objective import ShotGathers
from hpcfwi.io import write_atomic
from hpcfwi.model.grid import Domain, TimeAxis
from hpcfwi.model.problem import Problem
from hpcfwi.reporting import figures, plotting

# A picture that warns (of empty slices, of text that does not fit) is not finished.
pytestmark = pytest.mark.filterwarnings("error")

SQUARE = Domain((41, 41), (25.0, 25.0), (0.0, 0.0))
LONG = Domain((81, 21), (150.0, 150.0), (0.0, 0.0))  # 12 km x 3 km
FLAT = Domain((121, 7), (1000.0, 1000.0), (0.0, 0.0))
TALL = Domain((5, 81), (25.0, 25.0), (500.0, -100.0))
CUBE = Domain((13, 11, 9), (100.0, 100.0, 100.0), (1000.0, 0.0, 0.0))
SLAB = Domain((31, 21, 6), (100.0, 100.0, 100.0), (0.0, 0.0, 0.0))
PILLAR = Domain((6, 6, 21), (100.0, 100.0, 100.0), (0.0, 0.0, 0.0))
DOMAINS = {"square": SQUARE, "long": LONG, "flat": FLAT, "tall": TALL, "cube": CUBE, "slab": SLAB, "pillar": PILLAR}
every_domain = pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS.keys())


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with matplotlib.rc_context(plotting.STYLE):
        yield


def layers(domain: Domain, contrast: float = 1.0) -> np.ndarray:
    """Velocity that grows with every coordinate, no two cells the same."""
    steps = np.meshgrid(*(np.linspace(0, 1, n) for n in domain.shape), indexing="ij")
    return np.asarray(1.5 + contrast * sum(step * 0.3**axis for axis, step in enumerate(reversed(steps))))


def positions(domain: Domain, count: int) -> np.ndarray:
    """A line of positions along the surface."""
    line = np.repeat([domain.origin], count, axis=0).astype(float)
    line[:, 0] = np.linspace(domain.origin[0], domain.last[0], count)
    return line


def models_figure(domain: Domain, **changes: Any) -> Figure:
    models = {"true": layers(domain, 2.0), "initial": layers(domain), "final": layers(domain, 1.8)}
    given = {**models, "sources": positions(domain, 5), "receivers": positions(domain, 200), **changes}
    return figures.models_figure(domain, **given)


@functools.cache
def plain_figure(domain: Domain) -> Figure:
    """The models of a domain, drawn once for all tests that only look."""
    with matplotlib.rc_context(plotting.STYLE):
        figure = models_figure(domain)
        figure.draw_without_rendering()
    return figure


def panels_of(figure: Figure) -> list:
    """Axes with an image of data in them; the colour bar is not one."""
    return [axes for axes in figure.axes if axes.images]


def value_at(image: AxesImage, x: float, y: float) -> float:
    """What an image shows at a point in data coordinates."""
    left, right, bottom, top = image.get_extent()
    shown: Any = image.get_array()
    rows, columns = shown.shape
    assert image.origin == "upper"
    row, column = int((y - top) / (bottom - top) * rows), int((x - left) / (right - left) * columns)
    return float(shown[row, column])


def texts_of(figure: Figure) -> list:
    """Every text that is drawn, tick labels included."""
    found = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    beyond = set()
    for axes in figure.axes:
        sides: list[tuple[Any, tuple[float, float]]] = [(axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())]
        for (axis, limits), minor in itertools.product(sides, (False, True)):
            for tick, at in zip(axis.get_ticklabels(minor), axis.get_ticklocs(minor=minor), strict=False):
                if not min(limits) - 1e-9 <= at <= max(limits) + 1e-9:
                    beyond.add(tick)
    return [text for text in found if text not in beyond]


def png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", header[16:24])


def gather(offsets: np.ndarray, velocity: float = 2.0, samples: int = 120) -> np.ndarray:
    """Direct wave and a reflection, 8 ms, offsets in km."""
    times = 0.008 * np.arange(samples)[:, None]
    record = np.zeros((samples, len(offsets)))
    for start, speed, size in ((0.05, velocity, 2.0), (0.4, 1.3 * velocity, 1.0)):
        phase = (np.pi * 12 * (times - np.sqrt(start**2 + (offsets / speed) ** 2))) ** 2
        record += size * (1 - 2 * phase) * np.exp(-phase)
    return record


def gather_arguments(receivers: np.ndarray) -> dict[str, Any]:
    offsets = np.linalg.norm(receivers - receivers[0], axis=1) / 1000
    arguments: dict[str, Any] = {"observed": gather(offsets), "predicted": gather(offsets, 2.02)}
    return {**arguments, "sample_interval": 8.0, "receivers": receivers, "source": receivers[0], "shot": "17"}


def processing_arguments() -> dict[str, Any]:
    """A gather before and after a resampling to 16 ms and a gain of 1000."""
    arguments = gather_arguments(positions(SQUARE, 21))
    receivers = arguments["receivers"]
    before = ShotGathers(arguments["observed"], arguments["predicted"], TimeAxis(8.0, 120), receivers)
    after = ShotGathers(*(1000 * each[::2] for each in before[:2]), TimeAxis(16.0, 60), receivers)
    return {"stages": {"before": before, "after": after}, "shot": "17", "steps": "resample, time_gain"}


# --- files


def test_every_figure_is_saved_as_a_png_of_moderate_size(tmp_path: Path) -> None:
    true, initial, final = layers(SQUARE, 2.0), layers(SQUARE), layers(SQUARE, 1.8)
    builds = {
        "models": lambda: figures.models_figure(SQUARE, initial=initial, final=final),
        "difference": lambda: figures.difference_figure(SQUARE, initial=initial, final=final, true=true),
        "convergence": lambda: figures.convergence_figure([4.0, 9.0, 1.0], [1, 3], [4.0, 1.0]),
        "gather": lambda: figures.gather_figure(**gather_arguments(positions(SQUARE, 21))),
        "gradient": lambda: figures.gradient_figure(SQUARE, final - true),
        "processing": lambda: figures.processing_figure(**processing_arguments()),
    }
    for name, build in builds.items():
        path = plotting.save_figure(tmp_path / f"{name}.png", build)
        assert path == tmp_path / f"{name}.png"
        width, height = png_size(path)
        assert 400 < width < 2200
        assert 400 < height < 2200


def save_gradient(path: Path, domain: Domain) -> Path:
    return plotting.save_figure(path, lambda: figures.gradient_figure(domain, layers(domain)))


@pytest.mark.parametrize(
    ("domain", "low", "high"), [(LONG, 2.5, 4.0), (SQUARE, 0.9, 1.3), (TALL, 0.1, 0.5), (FLAT, 3.5, 8.0)]
)
def test_a_figure_of_one_model_has_about_the_aspect_of_the_model(
    tmp_path: Path, domain: Domain, low: float, high: float
) -> None:
    width, height = png_size(save_gradient(tmp_path / "gradient.png", domain))
    assert low < width / height < high


def test_long_models_are_stacked_and_others_stand_side_by_side() -> None:
    width, height = plain_figure(LONG).get_size_inches()
    assert width < 1.5 * height
    width, height = plain_figure(SQUARE).get_size_inches()
    assert width > 2 * height


def test_a_failed_write_keeps_the_old_figure_and_leaves_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gradient.png"
    path.write_bytes(b"old")

    def fail(_path: Path, write: Any) -> None:
        def write_half(file: Any) -> None:
            write(file)
            raise OSError(28, "No space left on device")

        write_atomic(_path, write_half)

    monkeypatch.setattr(plotting, "write_atomic", fail)
    with pytest.raises(StagingError, match="No space left"):
        save_gradient(path, SQUARE)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# --- matplotlib's manners


def test_importing_the_module_does_not_import_matplotlib() -> None:
    code = "import sys, hpcfwi.reporting.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_drawing_imports_no_pyplot_and_leaves_the_users_style_alone(tmp_path: Path) -> None:
    code = f"""
import sys, pathlib, numpy as np, matplotlib
from hpcfwi.model.grid import Domain, TimeAxis
from hpcfwi.model.problem import Problem
from hpcfwi.reporting import figures
from hpcfwi.reporting.plotting import save_figure
# asking for the backend would import pyplot
before = {{key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != 'backend'}}
model = np.ones((9, 9)); model[4, 4] = 2.0
domain = Domain((9, 9), (10.0, 10.0), (0.0, 0.0))
for name, build in {{
    'a': lambda: figures.models_figure(domain, initial=model, final=model),
    'b': lambda: figures.gradient_figure(domain, model, model > 1),
    'c': lambda: figures.convergence_figure([2.0, 1.0], [1, 2], [2.0, 1.0]),
}}.items():
    save_figure(pathlib.Path({str(tmp_path)!r}) / f'{{name}}.png', build)
assert 'matplotlib.pyplot' not in sys.modules
assert all(matplotlib.rcParams[key] == value for key, value in before.items())
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(list(tmp_path.iterdir())) == 3


# --- layout, for models of all proportions


def test_a_note_is_below_everything_else(tmp_path: Path) -> None:
    drawn = []
    for note in ("", "without 1 of its 3 shots (data.exclude: 1)", ""):
        path = tmp_path / f"{len(drawn)}.png"
        plotting.save_figure(
            path, lambda: figures.difference_figure(SQUARE, initial=layers(SQUARE), final=layers(SQUARE, 2.0)), note
        )
        drawn.append(matplotlib.image.imread(path))
    plain, noted, after = drawn
    assert plain.shape == after.shape
    assert (plain == after).all()
    assert noted.shape[0] > plain.shape[0]
    # dark letters on the last lines, at the left, where there is nothing else
    assert noted[-45:, :200, :3].min() < 0.3


@every_domain
def test_no_two_texts_overlap(domain: Domain) -> None:
    figure = plain_figure(domain)
    boxes = {text: text.get_window_extent() for text in texts_of(figure)}
    overlapping = [
        (a.get_text(), b.get_text()) for a, b in itertools.combinations(boxes, 2) if boxes[a].overlaps(boxes[b])
    ]
    assert overlapping == []


@every_domain
def test_panels_have_equal_aspect_and_the_colour_bar_their_height(domain: Domain) -> None:
    figure = plain_figure(domain)
    panels = panels_of(figure)
    (bar,) = (axes for axes in figure.axes if axes not in panels)
    for axes in panels:
        left, right, bottom, top = axes.images[0].get_extent()
        box = axes.get_window_extent()
        assert box.height / box.width == pytest.approx(abs(bottom - top) / (right - left), rel=1e-6)
    boxes = [axes.get_position(original=True) for axes in panels]
    place = bar.get_position(original=True)
    assert place.y1 == pytest.approx(max(box.y1 for box in boxes), abs=1e-6)
    # that of a flat model is taller, so that its label has room
    lowest = min(box.y0 for box in boxes)
    assert place.y0 == pytest.approx(lowest, abs=1e-6) or (place.y0 < lowest and domain in (FLAT,))


@pytest.mark.parametrize("domain", [SQUARE, LONG, TALL])
def test_panels_of_2d_models_fill_their_places(domain: Domain) -> None:
    figure = plain_figure(domain)
    for axes in panels_of(figure):
        given, used = axes.get_position(original=True), axes.get_position()
        assert used.width * used.height > 0.97 * given.width * given.height


@every_domain
def test_depth_points_down_and_everything_is_in_km(domain: Domain) -> None:
    panels = panels_of(plain_figure(domain))
    labels = {axes.get_ylabel() for axes in panels} | {axes.get_xlabel() for axes in panels}
    plane = {"Distance (km)", "Depth (km)", ""}
    assert labels == (plane if domain.ndim == 2 else {"Distance x (km)", "Distance y (km)", "Depth (km)", ""})
    for i, axes in enumerate(panels):
        a_map = domain.ndim == 3 and i % 3 == 2
        assert axes.yaxis_inverted() != a_map
        assert not axes.xaxis_inverted()
        across = 1 if domain.ndim == 3 and i % 3 == 1 else 0
        left, right = axes.get_xlim()
        assert right - left == pytest.approx(domain.shape[across] * domain.spacing[across] / 1000)


# --- models


def test_all_models_share_one_scale_that_covers_the_truth() -> None:
    figure = plain_figure(LONG)
    panels = panels_of(figure)
    assert [axes.get_title() for axes in panels] == ["True model", "Initial model", "Final model"]
    assert len(figure.axes) == 4
    limits = {axes.images[0].get_clim() for axes in panels}
    assert limits == {(1.5, layers(LONG, 2.0).max())}
    assert figure.axes[-1].get_ylabel() == "P-wave velocity (km/s)"


def test_a_spike_in_the_final_model_does_not_stretch_the_scale() -> None:
    final = layers(SQUARE)
    final[0, 0] = 50.0
    figure = models_figure(SQUARE, true=None, initial=layers(SQUARE), final=final)
    assert panels_of(figure)[0].images[0].get_clim()[1] < 3.5


def test_every_cell_is_drawn_at_its_position() -> None:
    model = layers(TALL, 2.0)
    image = panels_of(plain_figure(TALL))[0].images[0]
    for i, k in ((0, 0), (1, 70), (4, 80)):
        x, z = (o + n * h for o, n, h in zip(TALL.origin, (i, k), TALL.spacing, strict=True))
        assert value_at(image, x / 1000, z / 1000) == model[i, k]


def test_a_volume_is_cut_in_the_middle_in_three_directions() -> None:
    model = layers(CUBE, 2.0)
    panels = panels_of(plain_figure(CUBE))
    assert len(panels) == 9
    x_z, y_z, x_y = panels[:3]
    # cell (2, 8, 3) of each plane; the middle of the grid is (6, 5, 4)
    assert value_at(x_z.images[0], 1.2, 0.3) == model[2, 5, 3]
    assert value_at(y_z.images[0], 0.8, 0.3) == model[6, 8, 3]
    assert value_at(x_y.images[0], 1.2, 0.8) == model[2, 8, 4]
    assert [axes.get_title() for axes in panels[:3]] == [
        "at y = 0.5 km",
        "True model\nat x = 1.6 km",
        "at depth 0.4 km",
    ]


def test_maps_of_a_volume_at_several_depths() -> None:
    model = layers(CUBE, 2.0)
    panels = panels_of(figures.depths_figure(CUBE, initial=model, final=model + 1))
    assert [axes.get_title() for axes in panels[:4]] == [
        "at depth 0.2 km",
        "at depth 0.3 km",
        "Initial model\nat depth 0.5 km",
        "at depth 0.6 km",
    ]
    assert len(panels) == 8
    assert value_at(panels[1].images[0], 1.2, 0.8) == model[2, 8, 3]
    assert value_at(panels[5].images[0], 1.2, 0.8) == model[2, 8, 3] + 1


def test_sources_and_dense_receivers_are_marked_where_they_are() -> None:
    figure = plain_figure(LONG)
    sources, receivers = panels_of(figure)[0].collections
    assert np.allclose(sources.get_offsets()[:, 0], np.linspace(0, 12, 5))
    shown = np.asarray(receivers.get_offsets())[:, 0]
    steps = np.diff(shown)
    assert 20 < len(shown) < 70
    assert np.allclose(steps, steps[0])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["source", "receiver"]


def test_a_single_source_and_no_receivers_are_drawn() -> None:
    figure = models_figure(SQUARE, sources=np.array([100.0, 0.0]), receivers=np.empty((0, 2)))
    (sources,) = panels_of(figure)[0].collections
    assert np.allclose(sources.get_offsets(), [[0.1, 0.0]])


@pytest.mark.parametrize("domain", [SQUARE, CUBE], ids=["square", "cube"])
def test_gaps_in_a_model_stay_gaps(domain: Domain) -> None:
    holes = layers(domain)
    holes[: domain.shape[0] // 2 + 1] = np.nan
    holes[-1] = np.inf
    for figure in (
        models_figure(domain, true=None, initial=holes, final=layers(domain)),
        figures.difference_figure(domain, initial=holes, final=layers(domain), true=layers(domain)),
        figures.gradient_figure(domain, holes, None),
    ):
        image = panels_of(figure)[0].images[0]
        assert np.array_equal(
            np.ma.getmaskarray(image.get_array()).any(axis=0), ~np.isfinite(holes).reshape(len(holes), -1).all(axis=1)
        )
    figure.canvas.draw()


def test_models_of_one_value_or_none_are_drawn() -> None:
    for value in (2.0, np.nan):
        model = np.full(SQUARE.shape, value)
        figure = models_figure(SQUARE, true=None, initial=model, final=model)
        low, high = panels_of(figure)[0].images[0].get_clim()
        assert low < high


# --- differences and gradient


def test_differences_share_a_symmetric_scale_and_name_their_relative_errors() -> None:
    true = np.full(SQUARE.shape, 2.0)
    figure = figures.difference_figure(SQUARE, initial=true + 0.2, final=true - 0.05, true=true)
    panels = panels_of(figure)
    assert [axes.get_title() for axes in panels] == [
        "Initial − true model\nrelative error 10.0 %",
        "Final − true model\nrelative error 2.5 %",
    ]
    for axes, expected in zip(panels, (0.2, -0.05), strict=True):
        assert axes.images[0].get_clim() == pytest.approx((-0.2, 0.2))
        assert np.allclose(axes.images[0].get_array(), expected)


def test_without_a_true_model_the_difference_is_the_update() -> None:
    initial = layers(SQUARE)
    (panel,) = panels_of(figures.difference_figure(SQUARE, initial=initial, final=initial + 0.1))
    assert panel.get_title() == "Final − initial model"
    assert np.allclose(panel.images[0].get_array(), 0.1)


def test_large_gradients_at_sources_do_not_stretch_the_scale() -> None:
    gradient = np.random.default_rng(0).standard_normal(SQUARE.shape)
    gradient[1, ::4] = 1e6
    figure = figures.gradient_figure(SQUARE, gradient, None)
    low, high = panels_of(figure)[0].images[0].get_clim()
    assert low == -high
    assert 1 < high < 5
    assert figure.axes[-1].get_ylabel() == "Misfit per (s/km)$^2$"


@pytest.mark.parametrize("domain", [LONG, CUBE], ids=["long", "cube"])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_frozen_cells_are_hatched(domain: Domain, share: float) -> None:
    frozen = np.zeros(domain.shape, dtype=bool)
    frozen[..., : round(share * domain.shape[-1])] = True
    figure = figures.gradient_figure(domain, layers(domain), frozen)
    hatched = [c for c in panels_of(figure)[0].collections if getattr(c, "hatches", None)]
    assert bool(hatched) == bool(figure.legends) == (share > 0)
    if share == 0.4:
        outline = np.concatenate([path.vertices for path in hatched[0].get_paths()])
        assert outline[:, 1].max() < (domain.origin[-1] + 0.5 * (domain.last[-1] - domain.origin[-1])) / 1000


# --- convergence


def test_convergence_is_relative_to_the_first_misfit() -> None:
    misfits = [8.0, 20.0, 4.0, 2.0, 0.8]
    figure = figures.convergence_figure(misfits, [1, 3, 4, 5], [8.0, 4.0, 2.0, 0.8], [0.1, 0.08, 0.06, 0.05])
    top, bottom = figure.axes
    every, accepted = top.lines
    assert np.allclose(every.get_xydata(), np.c_[[1, 2, 3, 4, 5], [1, 2.5, 0.5, 0.25, 0.1]])
    assert np.allclose(accepted.get_xydata(), np.c_[[1, 3, 4, 5], [1, 0.5, 0.25, 0.1]])
    assert top.get_yscale() == "log"
    assert top.get_title() == "Misfit: 10.0 % of the first misfit after 3 iterations"
    assert np.allclose(bottom.lines[0].get_ydata(), [10, 8, 6, 5])
    ticks = bottom.get_xticks()
    assert np.array_equal(ticks, np.round(ticks))


@pytest.mark.parametrize(
    ("misfits", "errors"),
    [
        ([5.0], [0.1]),
        ([0.0, 0.0], None),
        ([3.0, float("nan")], [None, 0.1]),
        ([1.0, 1e-9], [None, None]),
        ([1, 0.97], []),
    ],
)
def test_short_histories_and_zero_or_missing_misfits_are_drawn(
    tmp_path: Path, misfits: list[float], errors: list[float | None] | None
) -> None:
    count = list(range(1, len(misfits) + 1))
    plotting.save_figure(tmp_path / "a.png", lambda: figures.convergence_figure(misfits, count, misfits, errors or []))
    assert png_size(tmp_path / "a.png")[0] > 400


# --- gathers


def test_a_gather_shows_the_record_and_its_residual_on_one_scale() -> None:
    arguments = gather_arguments(positions(SQUARE, 21))
    observed, predicted = arguments["observed"], arguments["predicted"]
    figure = figures.gather_figure(**arguments)
    panels = panels_of(figure)
    for axes, record in zip(panels, (observed, predicted, predicted - observed), strict=True):
        limit = np.percentile(np.abs(observed), 99)
        assert axes.images[0].get_clim() == pytest.approx((-limit, limit))
        assert np.array_equal(axes.images[0].get_array(), record)
        assert axes.yaxis_inverted()
        assert axes.get_xlabel() == "Receiver x (km)"
        assert axes.get_ylim() == pytest.approx((119.5 * 0.008, -0.5 * 0.008))
    ratio = 100 * np.sqrt(np.mean((predicted - observed) ** 2) / np.mean(observed**2))
    assert panels[2].get_title() == f"Predicted − observed, final\nrms {ratio:.1f} % of observed"
    assert panels[0].get_ylabel() == "Time (s)"
    assert "17" in figure.get_suptitle()


def test_the_initial_models_residual_is_a_fourth_panel() -> None:
    arguments = gather_arguments(positions(SQUARE, 21))
    initial = 0.5 * arguments["observed"]
    panels = panels_of(figures.gather_figure(**arguments, initial=initial))
    assert panels[3].get_title() == "Predicted − observed, initial\nrms 50.0 % of observed"


def test_traces_are_sorted_along_a_well() -> None:
    well = np.c_[np.full(31, 400.0), np.linspace(0.0, 900.0, 31)]
    in_order = gather_arguments(well)
    shuffle = np.random.default_rng(0).permutation(31)
    shuffled = {k: v[:, shuffle] if k in ("observed", "predicted") else v for k, v in in_order.items()}
    first = panels_of(figures.gather_figure(**{**shuffled, "receivers": well[shuffle]}))[0]
    assert first.get_xlabel() == "Receiver depth (km)"
    assert first.get_xlim() == pytest.approx((-0.015, 0.915))
    assert np.array_equal(first.images[0].get_array(), in_order["observed"])


@pytest.mark.parametrize("kind", ["irregular", "areal", "single"])
def test_traces_without_an_even_spacing_are_numbered(kind: str) -> None:
    receivers = {
        "irregular": np.c_[[0.0, 10.0, 20.0, 40.0, 50.0], np.zeros(5)],
        "areal": np.array([(x, y, 0.0) for x in (0.0, 50.0) for y in (0.0, 10.0, 20.0)]),
        "single": np.array([[100.0, 0.0]]),
    }[kind]
    panel = panels_of(figures.gather_figure(**gather_arguments(receivers)))[0]
    assert panel.get_xlabel() == "Trace, sorted by receiver x"
    assert panel.get_xlim() == (0.5, len(receivers) + 0.5)


def test_dead_traces_and_silent_records_are_drawn(tmp_path: Path) -> None:
    arguments = gather_arguments(positions(SQUARE, 21))
    arguments["observed"][:, 3] = np.nan
    silent = np.zeros((50, 21))
    for changes in ({}, {"observed": silent, "predicted": silent}):
        plotting.save_figure(tmp_path / "a.png", lambda: figures.gather_figure(**arguments | changes))  # noqa: B023


class Predictions:
    """Stands for the objective of a run whose workers answer at once."""

    evaluations = (SimpleNamespace(misfit=2.0), SimpleNamespace(misfit=1.0))

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def predict(self, velocity: np.ndarray, index: int, processed: bool = True) -> ShotGathers:
        axis = self.problem.compared_axis(self.problem.recording) if processed else self.problem.recording
        receivers = self.problem.survey.shots[index].receivers
        record = velocity.mean() * np.ones((axis.samples, len(receivers)))
        return ShotGathers(record, 2 * record, axis, receivers)


@pytest.mark.parametrize("processed", [False, True])
def test_a_run_draws_the_processing_if_there_is_any(
    tmp_path: Path, fwi_toml: Path, make_problem: Any, processed: bool
) -> None:
    if processed:
        fwi_toml.write_text(fwi_toml.read_text() + '[[processing]]\nkind = "resample"\nsample_interval = 6\n')
    problem = make_problem()
    velocity = problem.initial_velocity
    rows = [Row(0, 1, 2.0, 1.0, None, None, 1.0, 1.0), Row(1, 2, 1.0, 1.0, None, None, 1.0, 2.0)]
    figures.draw_run_figures(tmp_path / "figures", problem, Predictions(problem), rows, velocity, velocity)
    assert (tmp_path / "figures" / "processing.png").exists() == processed


def test_the_processing_has_every_record_on_its_own_scale_and_all_on_one_axis_of_time() -> None:
    figure = figures.processing_figure(**processing_arguments())
    figure.draw_without_rendering()
    images = [axes.images[0] for axes in panels_of(figure)]
    assert [len(image.get_array()) for image in images] == [120, 60, 120, 60]
    before, after = (image.get_clim()[1] for image in images[:2])
    assert 800 < after / before < 1200
    assert len({axes.get_ylim() for axes in panels_of(figure)}) == 1
    boxes = [text.get_window_extent() for text in texts_of(figure)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_no_two_texts_of_a_gather_overlap() -> None:
    arguments = gather_arguments(positions(LONG, 81))
    figure = figures.gather_figure(**arguments, initial=arguments["observed"])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in texts_of(figure)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
