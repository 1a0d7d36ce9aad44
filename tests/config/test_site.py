"""Site files: found by name or path, and checked."""

import pytest

from hpcfwi.config.site import find_site, load_site
from hpcfwi.errors import InputError


def load(*settings: str):
    return load_site("workstation", [setting.removeprefix("site.") for setting in settings]).config


def test_settings_reach_the_site():
    assert load("site.worker.threads=2").worker.threads == 2
    assert load().worker.threads == "auto"


@pytest.mark.parametrize("setting", ["memory=-1", "memory=0", "memory=much", "processes=0", "threads=1.5"])
def test_workers_need_positive_numbers_or_auto(setting):
    with pytest.raises(
        InputError, match=rf"workstation\.toml with --set: .*\n  worker\.{setting.partition('=')[0]}: is "
    ):
        load(f"site.worker.{setting}")


def test_a_site_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(InputError, match=r"--site moon: there is no such site; there are .*workstation"):
        find_site("moon")


def test_own_sites_come_first(tmp_path, monkeypatch):
    (tmp_path / "workstation.toml").write_text("description = 'mine'")
    monkeypatch.setenv("HPCFWI_SITES", str(tmp_path))
    assert load().description == "mine"
