"""report.html: its content for runs in every state, and that nothing in a run folder is taken for code."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from dataclasses import asdict
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from sample_events import sample, sample_line

from hpcfwi import write_report
from hpcfwi.artifacts import read_container, unpickle
from hpcfwi.errors import InputError
from hpcfwi.events.lease import Holder
from hpcfwi.inversion.history import History, Row
from hpcfwi.model.grid import Domain
from hpcfwi.reporting.report.data import ReportData, RunModels
from hpcfwi.reporting.report.models import gradient_group, model_history, models_group

pytestmark = pytest.mark.hostile

# Images run no scripts, SVG included.
IMAGES = ("data:image/png;base64,", "data:image/svg+xml;base64,")
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """A page taken apart: elements with their attributes, and the text of each section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self.scripts: list[str] = []
        self.errors: list[str] = []
        self._open: list[str] = []
        self._section = "header"
        self.source = text
        self.feed(text)
        assert not self._open, f"not closed: {self._open}"
        assert not self.errors

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "section":
            self._section = dict(attributes)["id"]
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if self._open[-1:] != [tag]:
            self.errors.append(f"</{tag}> in {self._open}")
        else:
            self._open.pop()

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif "style" not in self._open:
            self.texts[self._section] = self.texts.get(self._section, "") + data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def frames(self):
        """What the script gets; nothing where there is no slider."""
        found = [script for script in self.scripts if script.startswith("[")]
        return json.loads(found[0]) if found else []

    @property
    def text(self):
        return " ".join(" ".join(self.texts.values()).split())


def page_of(run):
    return Page(write_report(run).read_text(encoding="utf-8"))


def picture(uri):
    """Colours of a picture, as another library reads them."""
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"), dtype=int)


@pytest.fixture
def run(first_run, tmp_path):
    """A finished run, to be changed."""
    copy = tmp_path / "run"
    shutil.copytree(first_run[2], copy)
    return copy


@pytest.fixture(scope="session")
def finished(first_run):
    """The page that the run itself has written."""
    return Page((first_run[2] / "report.html").read_text(encoding="utf-8"))


def kill(run):
    """Make the run look as if its driver had been killed in the last evaluation."""
    for name in ("result.json", "report.html"):
        (run / name).unlink()
    (run / "model.npy").rename(run / "model-current.npy")
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if '"evaluation started"' in line)
    (run / "events.jsonl").write_text("".join(lines[: last + 2]))


def typed(*events):
    """Events of these facts, and others that they need."""
    return [
        sample(event["event"], **{name: fact for name, fact in event.items() if name != "event"}) for event in events
    ]


def append(run, *events):
    with (run / "events.jsonl").open("a") as file:
        file.writelines(sample_line(event["event"], **event).decode() for event in events)


def test_a_run_writes_its_report_and_logs_it(first_run):
    _, done, folder = first_run
    assert (folder / "report.html").stat().st_mode & 0o777 == 0o600
    assert "report.html" in done.stdout
    logged = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    (event,) = (event for event in logged if event["event"] == "report")
    assert event["file"] == "report.html"
    assert 0 < event["seconds"] < 10


def test_the_page_loads_nothing_and_allows_only_its_own_script(finished):
    addresses = [
        value
        for _, attributes in finished.elements
        for key, value in attributes.items()
        if key in ("src", "href", "action", "data", "poster", "srcset")
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org)", finished.source)
    (policy,) = (meta["content"] for meta in finished.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; img-src data:;")
    (script,) = (script for script in finished.scripts if not script.startswith("["))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert not [key for _, attributes in finished.elements for key in attributes if key.startswith("on")]


def test_every_picture_has_a_text_and_every_heading_its_level(finished):
    assert finished.all("html") == [{"lang": "en"}]
    images = [image for image in finished.all("img") if image.get("role") != "presentation"]
    assert len(images) > 10
    assert all(len(image.get("alt", "")) > 20 for image in images)
    levels = [int(tag[1]) for tag, _ in finished.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    names = {attributes["id"] for _, attributes in finished.elements if "id" in attributes}
    drawings = [svg for svg in finished.all("svg") if svg.get("aria-hidden") != "true"]
    assert drawings
    for svg in drawings:
        assert svg["role"] == "img"
        assert set(svg["aria-labelledby"].split()) <= names
    (slider,) = (field for field in finished.all("input") if field["type"] == "range")
    assert slider["id"] in [label["for"] for label in finished.all("label")]
    assert slider["aria-valuetext"].startswith("Iteration 2: misfit")


def test_every_iteration_has_its_model_with_misfit_and_error(finished, first_run):
    rows = History(first_run[2] / "history.csv").rows
    assert len(finished.frames) == len(rows) == 3
    for frame, row in zip(finished.frames, rows, strict=True):
        assert f"{row.misfit:.6g}" in frame["label"]
        assert f"{100 * row.model_error:.3g} %" in frame["label"]
        assert len(frame["pictures"]) == 2
    first, *_, last = finished.frames
    shown = [image for image in finished.all("img") if "data-panel" in image]
    assert [[image["src"], image["alt"]] for image in shown] == last["pictures"]
    assert first["pictures"][0] != last["pictures"][0]
    (final,) = (image for image in finished.all("img") if image["alt"].startswith("Final model, "))
    assert np.abs(picture(final["src"]) - picture(last["pictures"][0][0])).max() <= 3


def test_the_image_of_a_constant_initial_model_has_one_colour(finished):
    first = picture(finished.frames[0]["pictures"][0][0])
    assert first.shape == (31, 31, 3)
    assert np.ptp(first.reshape(-1, 3), axis=0).max() == 0


def test_summary_shots_versions_and_configuration_are_shown(finished, first_run):
    rows = History(first_run[2] / "history.csv").rows
    summary = " ".join(finished.texts["summary"].split())
    assert "Iterations 2 of at most 2" in summary
    assert f"Evaluations {rows[-1].evaluations}" in summary
    assert "31 × 31 points, 20 × 20 m" in summary
    assert "to the byte" in summary
    assert "core-hours" in summary
    assert "Largest relative misfits" in finished.texts["shots"]
    assert f"In evaluation {rows[-1].evaluations}" in finished.texts["shots"]
    assert "Misfit at each source" in finished.texts["shots"]
    setting = finished.texts["setting"]
    assert (first_run[2] / "config.toml").read_text() in setting
    assert "devito" in setting
    assert "dispersion" in finished.texts["failures"]
    assert re.search("[12] workers? on 1 host finished", finished.texts["workers"])


def test_figures_are_embedded_unless_they_are_from_an_earlier_end_of_the_run(run):
    (run / "figures").mkdir()
    Image.new("RGB", (300, 100)).save(run / "figures" / "gather.png")
    assert "earlier end" in page_of(run).text
    append(run, {"time": 1e9, "event": "figures", "seconds": 1.0})
    page = page_of(run)
    assert "earlier end" not in page.text
    assert [image for image in page.all("img") if image["alt"].startswith("Records of a shot")]
    (run / "figures" / "gather.png").write_bytes(b"\x89PNG\r\n\x1a\n but torn")
    assert not [image for image in page_of(run).all("img") if image["alt"].startswith("Records of a shot")]


def test_the_report_of_a_killed_run_shows_what_its_folder_has(run, hpcfwi):
    kill(run)
    done = hpcfwi("report", run)
    assert (done.returncode, done.stdout) == (0, f"{run / 'report.html'}\n")
    page = Page((run / "report.html").read_text())
    assert "Killed" in page.texts["header"]
    assert "Current model" in page.texts["models"]
    assert len(page.frames) == 3
    assert "to the byte" not in page.texts["summary"]


def test_a_running_driver_and_a_dead_one_are_distinguished(run):
    kill(run)
    here = asdict(Holder.current())
    (run / "driver.json").write_text(json.dumps(here))
    header = " ".join(page_of(run).texts["header"].split())
    assert f"Running – inverting (process {here['pid']} on {here['host']})" in header
    (run / "driver.json").write_text(json.dumps(here | {"started": here["started"] - 100}))
    assert "its driver died while it was inverting" in page_of(run).texts["header"]


def test_a_run_that_has_just_begun_has_a_report(run):
    kill(run)
    lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    (run / "events.jsonl").write_text("".join(lines[:2]))
    for name in ("history.csv", "model-current.npy"):
        (run / name).unlink()
    shutil.rmtree(run / "models")
    page = page_of(run)
    assert "Initial model" in page.texts["models"]
    assert "none yet" in page.texts["summary"]
    assert page.frames == []


def test_without_models_a_note_replaces_the_slider(run):
    shutil.rmtree(run / "models")
    (run / "gradient.npy").unlink()
    page = page_of(run)
    assert page.frames == []
    assert "The models of the iterations cannot be read: " in page.texts["iterations"]
    assert "gradient" not in page.texts


@pytest.mark.parametrize("damage", ["truncated", "of another grid"])
def test_damaged_models_are_skipped_and_counted(run, damage):
    whole, path = len(page_of(run).frames), run / "models" / "0001.npy"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-8])
    else:
        np.save(path, np.ones((3, 3), np.float32))
    page = page_of(run)
    assert len(page.frames) == whole - 1
    assert "1 model cannot be read: " in page.texts["iterations"]


def test_missing_files_of_the_problem_are_named_and_the_rest_is_shown(run, tmp_path):
    config = run / "config.toml"
    text = config.read_text()
    gone = f'[model]\nkind = "file"\nfile = "{tmp_path}/gone.npy"\n'
    config.write_text(re.sub(r"\[model\]\n(.+\n)+", gone, text))
    page = page_of(run)
    assert f"{tmp_path}/gone.npy" in page.texts["summary"]
    assert "Final model" in page.texts["models"]
    assert len(page.frames) == 3
    assert "Misfit at each source" not in page.texts["shots"]
    assert "Misfit of each shot" in page.texts["shots"]
    config.write_text("grid = 1")
    page = page_of(run)
    assert "grid" in page.texts["summary"]
    assert "models" not in page.texts


@pytest.mark.parametrize("name", ["events.jsonl", "history.csv", "config.toml", "model.npy", "result.json", "journal"])
@pytest.mark.parametrize("how", ["removed", "of zeros", "a folder"])
def test_with_a_missing_or_malformed_file_the_rest_is_shown(run, name, how):
    path = run / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if how == "of zeros":
        path.write_bytes(bytes(5000))
    elif how == "a folder":
        path.mkdir()
    page = page_of(run)
    assert "Configuration" in page.texts["setting"]
    if name != "history.csv":
        assert "Convergence" in page.texts["convergence"]


def test_without_a_history_the_iterations_come_from_the_events(run):
    before = page_of(run)
    (run / "history.csv").unlink()
    assert len(page_of(run).frames) == len(before.frames)


def test_starts_and_failures_are_shown(run):
    append(
        run,
        {"time": 2e9, "event": "start", "version": "1", "host": "node2", "pid": 7, "shots": 3, "iterations": 9},
        {"time": 2e9 + 1, "event": "retry", "shot": "2", "worker": "x", "reason": "it was late"},
        {"time": 2e9 + 1, "event": "retry", "shot": "2", "worker": "x", "reason": "it was late"},
        {"time": 2e9 + 2, "event": "warning", "message": "disk nearly full"},
        {"time": 2e9 + 3, "event": "task failed", "traceback": "Traceback: in shot.py", "worker": "x", "host": "node2"},
        {"time": 2e9 + 4, "event": "failed", "error": "RunError", "message": "shot 2 failed"},
    )
    (run / "result.json").unlink()
    page = page_of(run)
    assert "Failed – shot 2 failed" in " ".join(page.texts["header"].split())
    failures = " ".join(page.texts["failures"].split())
    assert "shot 2 is retried: it was late (2 times)" in failures
    assert "disk nearly full" in failures
    assert "in shot.py" in failures
    assert "Driver starts 2" in " ".join(page.texts["summary"].split())
    assert "driver started again after a pause" in page.source


def test_excluded_shots_are_named(run):
    (run / "result.json").unlink()  # of the end before
    append(run, {"time": 2e9, "event": "shot excluded", "shot": "1", "reason": "its record is broken"})
    page = page_of(run)
    assert "shots that failed: 1" in page.texts["summary"]
    assert "is left out: its record is broken" in page.texts["failures"]


def test_a_later_start_with_all_shots_ends_the_exclusion():
    start = sample("start", shots=3)
    data = ReportData([start, sample("iteration", iteration=0), sample("shot excluded", shot="1")])
    assert (data.excluded_shots, list(data.iterations)) == (["1"], [])
    for event in (sample("start", shots=2), sample("iteration", iteration=0)):
        data.apply(event)
    assert (data.excluded_shots, list(data.iterations)) == (["1"], [0])
    data.apply(start)
    assert (data.excluded_shots, list(data.iterations)) == ([], [])


def test_the_error_of_a_failed_run_is_shown_in_full(run):
    append(
        run,
        {
            "time": 2e9,
            "event": "failed",
            "error": "RunError",
            "message": "the disk is full\n  free some space",
            "traceback": None,
        },
    )
    assert "free some space" in page_of(run).texts["failures"]


def test_shot_misfits_compare_the_last_complete_evaluation_with_the_first():
    def shots(number, *misfits):
        return [
            {
                "event": "shot",
                "evaluation": number,
                "shot": str(i),
                "misfit": f,
                "host": "h",
                "worker": "w",
                "seconds": 1.0,
            }
            for i, f in enumerate(misfits)
        ]

    def evaluation(number, *misfits, late=0):
        return [
            {"event": "evaluation started", "evaluation": number, "shots": 3},
            *shots(number, *misfits)[: len(misfits) - late],
            {"event": "evaluation", "evaluation": number, "misfit": sum(misfits), "seconds": 1.0},
            *shots(number, *misfits)[len(misfits) - late :],
        ]

    begun = [{"event": "evaluation started", "evaluation": 3, "shots": 3}, *shots(3, 1.0)]
    data = ReportData(typed(*evaluation(1, 9.0, 8.0, 7.0), *evaluation(2, 3.0, 2.0, 1.0, late=1), *begun))
    assert data.shot_misfits.number == 2
    assert data.shot_misfits.first == {"0": 9.0, "1": 8.0, "2": 7.0}
    assert data.shot_misfits.last == {"0": 3.0, "1": 2.0, "2": 1.0}
    # after another start the rest of an evaluation completes what there was of it
    again = [{"event": "evaluation", "evaluation": n, "misfit": 1.0, "seconds": 0.0, "replayed": True} for n in (1, 2)]
    rest = [
        begun[0],
        *shots(3, 1.0, 5.0, 6.0)[1:],
        {"event": "evaluation", "evaluation": 3, "misfit": 12.0, "seconds": 1.0},
    ]
    data = ReportData(typed(*evaluation(1, 9.0, 8.0, 7.0), *evaluation(2, 3.0, 2.0, 1.0), *begun, *again, *rest))
    assert data.shot_misfits.number == 3
    assert data.shot_misfits.last == {"0": 1.0, "1": 5.0, "2": 6.0}
    assert data.evaluations[2] == 1.0


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"' onload=alert(1) \x1b[31m {{ 7 * 7 }}"


def test_names_and_texts_are_escaped(first_run, tmp_path):
    run = tmp_path / "<img src=x onerror=alert(1)>\udcff"  # the last byte is no text
    shutil.copytree(first_run[2], run)
    kill(run)
    shot = {"shot": EVIL, "worker": EVIL, "host": EVIL, "seconds": 0.5, "evaluation": 1, "misfit": 1.0}
    append(
        run,
        {
            "time": 2e9,
            "event": "start",
            "version": EVIL,
            "versions": {EVIL: EVIL},
            "site": EVIL,
            "layout": EVIL,
            "launch": EVIL,
            "host": EVIL,
            "job": EVIL,
            "shots": 1,
            "iterations": 1,
        },
        {"time": 2e9, "event": "job", "job": EVIL, "state": EVIL, "reason": EVIL},
        {"time": 2e9, "event": "worker joined", "worker": EVIL, "host": EVIL, "name": EVIL},
        {"time": 2e9, "event": "evaluation started", "evaluation": 1, "shots": 1},
        {"time": 2e9 + 1, "event": "shot", **shot},
        {"time": 2e9 + 1, "event": "evaluation", "evaluation": 1, "misfit": 1.0, "seconds": 1.0},
        *(
            {
                "time": 2e9 + 2,
                "event": event,
                "reason": EVIL,
                "message": EVIL,
                "node": EVIL,
                "task": EVIL,
                "traceback": EVIL,
                **shot,
            }
            for event in (
                "retry",
                "worker died",
                "job lost",
                "node lost",
                "shot excluded",
                "task failed",
                "warning",
                "failed",
            )
        ),
        {"time": 2e9 + 3, "event": "shot", **shot},
    )
    with (run / "config.toml").open("a") as file:
        file.write(f"# {EVIL[:60]}")
    page = page_of(run)
    assert len(page.all("script")) == 2
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    assert not [image for image in page.all("img") if not image["src"].startswith(IMAGES)]
    assert "\x1b" not in page.source
    assert "{{ 7 * 7 }}" in page.text
    assert page.text.count("alert(1)") > 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such run folder; hpcfwi run makes one"),
        (["fwi.toml"], "fwi.toml: no such run folder; hpcfwi run makes one"),
        (["."], ".: is not a run folder; hpcfwi run makes one"),
    ],
)
def test_a_folder_without_a_run_gives_one_error_message(hpcfwi, arguments, message):
    done = hpcfwi("report", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (hpcfwi.folder / "report.html").exists()


def test_a_report_that_cannot_be_written_is_a_warning(hpcfwi):
    run = hpcfwi.folder / "run"
    (run / "staged").mkdir(parents=True)
    (run / "report.html").mkdir()
    done = hpcfwi.run("run", "inversion.iterations=1")
    assert "warning: the report cannot be written" in done.stdout
    assert (run / "model.npy").exists()
    logged = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event for event in logged if event["event"] == "warning" and "report" in event["message"]]


def test_the_report_of_a_failed_run_shows_the_reason(hpcfwi, first_run):
    (hpcfwi.folder / "gathers").mkdir()
    for path in (first_run[2] / "staged" / "shots").iterdir():
        record = unpickle(path, read_container(path, "shot")[1])["record"]
        np.save(hpcfwi.folder / "gathers" / f"{path.stem}.npy", record + (np.inf if path.stem == "1" else 0.0))
    words = ("--set", "data.file=gathers", "--set", "site.worker.threads=1")
    done = hpcfwi("run", "fwi.toml", "--run-dir", "run", *words)
    assert done.returncode in (2, 3)
    page = Page((hpcfwi.folder / "run" / "report.html").read_text())
    assert "Failed – shot 1" in " ".join(page.texts["header"].split())
    assert page.frames == []


@pytest.mark.slow
def test_a_run_may_disable_its_report(hpcfwi):
    done = hpcfwi.run("run", "inversion.iterations=0", "output.report=false")
    assert not (hpcfwi.folder / "run" / "report.html").exists()
    assert "report.html" not in done.stdout


def test_write_report_is_a_python_function(run):
    assert write_report(str(run)) == run / "report.html"
    with pytest.raises(InputError, match="is not a run folder"):
        write_report(run / "staged")


def test_a_selection_of_many_iterations_is_shown(run, monkeypatch):
    monkeypatch.setattr("hpcfwi.reporting.report.models.MAX_FRAMES", 2)
    page = page_of(run)
    assert [frame["label"].split(":")[0] for frame in page.frames] == ["Initial model (iteration 0)", "Iteration 2"]
    assert "2 of 3 models are shown" in page.texts["iterations"]


@pytest.mark.parametrize("shape", [(700, 500), (90, 80, 70)])
def test_the_size_of_the_pictures_is_limited_for_large_models(tmp_path, shape):
    """Of noise, which cannot be compressed."""
    noise = np.random.default_rng(0).uniform(2.0, 4.0, shape)
    domain = Domain(shape, (10.0,) * len(shape), (0.0,) * len(shape))
    models = RunModels(domain, noise, True, noise, noise[::-1], np.zeros(shape, dtype=bool))
    (tmp_path / "models").mkdir()
    np.save(tmp_path / "gradient.npy", noise - 3.0)
    rows = []
    for i in range(5):
        np.save(tmp_path / "models" / f"{i:04d}.npy", np.roll(noise, i))
        rows.append(Row(i, i + 1, 1.0 / (i + 1), 1.0, 0.1, 0.1, 1.0, 1.0))
    history = model_history(tmp_path, rows, models)
    assert len(history.frames) == 5
    pictures = sum(len(uri) for frame in history.frames for uri, _ in frame["pictures"])
    pictures += sum(len(panel.image) for panel in models_group(models).panels)
    pictures += sum(len(panel.image) for panel in gradient_group(models, history.gradient).panels)
    assert 300_000 < pictures < 8_000_000


def test_the_report_of_200_000_shots_is_small(run):
    """200,000 shots: neither bars nor names nor points are kept one by one."""
    with (run / "events.jsonl").open("a") as file:
        for evaluation in range(10, 30):
            time = 2e9 + 1000 * evaluation
            begun = sample_line("evaluation started", time=time, evaluation=evaluation, shots=10_000)
            file.write(begun.decode())
            usual = sample("shot").facts()
            for i in range(10_000):
                worker = {"worker": f"tls://{i % 700}", "host": f"node{i % 70}", "pid": 1}
                done = {"shot": f"shot-{i}", "evaluation": evaluation, "misfit": 1.0 / (i + evaluation), "seconds": 9.5}
                file.write(json.dumps(usual | {"time": time + 10 * (1 + i // 700), **worker, **done}) + "\n")
            done = {"evaluation": evaluation, "misfit": 1.0, "seconds": 150.0}
            file.write(sample_line("evaluation", time=time + 151, **done).decode())
    path = write_report(run)
    assert path.stat().st_size < 2_000_000
    page = Page(path.read_text())
    assert "4000 of 10000 shots are drawn" in page.texts["shots"]
    assert "200" in page.texts["workers"]
