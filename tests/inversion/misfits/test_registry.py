"""Misfits by name; one of another distribution is one module and one entry point, without a change of this package."""

import csv
import inspect
import os
import pickle

import pytest

from hpcfwi.config.inversion import InversionSection
from hpcfwi.config.messages import validate
from hpcfwi.inversion.misfits.registry import MISFITS, MisfitSpec, load_misfit, misfit_identity

MISFIT = '''
"""The pseudo-Huber misfit, sum(sqrt(1 + r^2) - 1), which large residuals dominate less."""

import numpy as np


class PseudoHuber:
    def evaluate(self, predicted, observed, axis):
        residual = predicted - observed
        root = np.sqrt(1 + residual**2)
        return float((root - 1).sum(dtype=np.float64)), residual / root


class NoMisfit:
    pass


class Charbonnier(PseudoHuber):
    def __init__(self, scale=1.0):
        self.scale = scale

    def evaluate(self, predicted, observed, axis):
        value, source = super().evaluate(predicted / self.scale, observed / self.scale, axis)
        return self.scale**2 * value, self.scale * source


class WithoutFit(PseudoHuber):
    def evaluate(self, predicted, observed, axis):
        return np.nan, predicted


class WrongShape(PseudoHuber):
    def evaluate(self, predicted, observed, axis):
        value, source = super().evaluate(predicted, observed, axis)
        return value, source[:-1]
'''


@pytest.fixture
def other_distribution(hpcfwi):
    """A folder on PYTHONPATH, as pip would have installed it."""
    folder = hpcfwi.folder / "site-packages"
    described = folder / "robust_misfits-1.0.dist-info"
    described.mkdir(parents=True)
    (folder / "robust_misfits.py").write_text(MISFIT)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: robust-misfits\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[hpcfwi.misfits]\npseudo-huber = robust_misfits:PseudoHuber\n")
    hpcfwi.environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return folder


def misfits(path):
    with path.open() as file:
        return [float(row["misfit"]) for row in csv.DictReader(file)]


@pytest.mark.usefixtures("other_distribution")
def test_a_run_minimises_the_misfit_of_another_distribution(hpcfwi):
    hpcfwi.run("run", "inversion.misfit=pseudo-huber", "inversion.iterations=2", "output.report=false")
    hpcfwi.run("least-squares", "inversion.iterations=0", "output.report=false")
    found, other = (misfits(hpcfwi.folder / run / "history.csv") for run in ("run", "least-squares"))
    assert found[-1] < found[0] < other[0]  # sqrt(1 + r^2) - 1 < r^2 / 2


@pytest.mark.usefixtures("other_distribution")
@pytest.mark.slow
@pytest.mark.parametrize("name", ["pseudo-huber", "robust_misfits:PseudoHuber"])
def test_a_check_tests_the_gradient_with_the_misfit_of_another_distribution(hpcfwi, name):
    checked = hpcfwi("check", "fwi.toml", "--set", f"inversion.misfit={name}")
    assert checked.returncode == 0, checked.stdout
    assert f"misfit {name}" in checked.stdout


@pytest.mark.usefixtures("other_distribution")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("l3", 'inversion.misfit: is "l3"; it should be one of "l2", "huber", '),
        ("l3", '"gsot", "pseudo-huber", or "module:name"'),
        ("no_such_module:L1", 'inversion.misfit: "no_such_module:L1" cannot be loaded (ModuleNotFoundError'),
        ("robust_misfits:L1", 'inversion.misfit: "robust_misfits:L1" cannot be loaded (AttributeError'),
        ("robust_misfits:NoMisfit", "makes a NoMisfit, which has no method evaluate"),
        (
            '{kind="robust_misfits:Charbonnier", sale=2}',
            'inversion.misfit: "robust_misfits:Charbonnier" cannot be made with sale = 2 (TypeError: ',
        ),
        ('{kind="gsot", tau=2}', "inversion.misfit.tau: unknown key; the keys are kind, max_shift, sample_interval"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_misfit_that_cannot_be_used_is_refused_before_anything_starts(hpcfwi, command, name, message):
    done = hpcfwi(command, "fwi.toml", "--set", f"inversion.misfit={name}")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (hpcfwi.folder / "runs").exists()


@pytest.mark.parametrize("name", [pytest.param("pseudo-huber", marks=pytest.mark.slow), "robust_misfits:PseudoHuber"])
def test_a_run_is_not_continued_with_other_code_of_its_misfit(hpcfwi, other_distribution, name):
    settings = f"inversion.misfit={name}", "output.report=false", "inversion.iterations=0"
    hpcfwi.run("run", *settings)
    assert misfits(hpcfwi.folder / "run" / "history.csv")
    module = other_distribution / "robust_misfits.py"
    module.write_text(MISFIT.replace("1 + residual**2", "2 + residual**2"))
    command = ["run", "fwi.toml", "--run-dir", "run"]
    done = hpcfwi(*command, *(part for setting in settings for part in ("--set", setting)))
    assert done.returncode == 2, done.stderr
    assert "holds a run of another problem:\n  misfit code: " in done.stderr


@pytest.mark.parametrize("package", [True, False])
def test_a_misfit_is_identified_by_all_files_of_its_package_but_not_of_a_plain_folder(tmp_path, monkeypatch, package):
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / f"folder_{package}"
    folder.mkdir()
    if package:
        (folder / "__init__.py").touch()
    (folder / "misfits.py").write_text("from hpcfwi.inversion.misfits.least_squares import LeastSquares\n")
    (folder / ".#misfits.py").symlink_to("nowhere")  # Emacs marks a file that is being edited so
    name = MisfitSpec(f"{folder.name}.misfits:LeastSquares")
    before = misfit_identity(name)
    (folder / "helpers.py").write_text("POWER = 2\n")
    assert (misfit_identity(name) != before) == package


@pytest.mark.usefixtures("other_distribution")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WrongShape", "evaluate() must return (value, derivative with respect to predicted)"),
        ("WithoutFit", "the misfit robust_misfits:WithoutFit is nan for a finite gather"),
    ],
)
def test_a_misfit_that_returns_nonsense_is_told_apart_in_one_line(hpcfwi, name, message):
    done = hpcfwi("check", "fwi.toml", "--set", f"inversion.misfit=robust_misfits:{name}")
    assert done.returncode == 3, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_parameters_are_keyword_arguments_of_a_misfit_of_another_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "scaled_misfits.py").write_text(MISFIT)
    section = validate(
        InversionSection, {"bounds": [1.0, 2.0], "misfit": {"kind": "scaled_misfits:Charbonnier", "scale": 3}}, ""
    )
    spec = MisfitSpec.from_config(section.misfit)
    assert str(spec) == "scaled_misfits:Charbonnier (scale = 3)"
    assert load_misfit(spec).scale == 3
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize("kind", MISFITS)
def test_the_configuration_has_the_parameters_and_defaults_of_each_misfit(kind):
    section = validate(InversionSection, {"bounds": [1.0, 2.0], "misfit": kind}, "").misfit
    values = {name: value for name, value in section if name != "kind"}
    taken = inspect.signature(MISFITS[kind]).parameters.values()
    assert values == {each.name: each.default for each in taken if each.name != "misfit"}
