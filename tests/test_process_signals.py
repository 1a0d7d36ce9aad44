"""An interrupt is heard, even if Python loses the first exception; and the end that it leads to is not disturbed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time

import pytest

import hpcfwi.cli.main as cli
import hpcfwi.process as interrupts
from hpcfwi.process import (
    defer_interrupts,
    graceful_stop,
    ignore_signals,
    ignoring_signals_at_exit,
    install_handlers,
    interrupted,
    stop_requested,
)


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    """Leaves the test run's own handlers as they were."""
    numbers = (*interrupts.STOP_SIGNALS, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    monkeypatch.setattr(interrupts, "_received", False)
    monkeypatch.setattr(interrupts, "_stop_requested", "")
    hook = sys.unraisablehook
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", interrupts.STOP_SIGNALS)
def test_every_signal_is_an_interrupt_once_handlers_are_installed(number):
    install_handlers()
    assert not interrupted()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    assert interrupted()


def test_a_second_signal_does_not_interrupt_the_clean_up_after_the_first():
    install_handlers()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    for number in interrupts.STOP_SIGNALS:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", interrupts.GRACEFUL_SIGNALS)
def test_a_signal_requests_a_graceful_stop_and_a_second_one_interrupts(number):
    install_handlers()
    with graceful_stop():
        os.kill(os.getpid(), number)
        assert stop_requested() == number.name
        assert not interrupted()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_outside_a_graceful_stop_every_signal_interrupts_and_ctrl_c_always_does():
    install_handlers()
    with graceful_stop(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    interrupts._received = False
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert not stop_requested()


def test_ignored_signals_stay_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    install_handlers()
    os.kill(os.getpid(), signal.SIGHUP)


def test_the_callers_handlers_are_restored_after_a_clean_end():
    before = signal.getsignal(signal.SIGTERM)
    with ignoring_signals_at_exit() as deafen:
        deafen()
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_handlers_are_installed_again_after_a_clean_end_unless_a_stop_was_requested():
    install_handlers()
    with ignoring_signals_at_exit() as deafen:
        deafen()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    with ignoring_signals_at_exit() as deafen:
        deafen()
    for number in interrupts.STOP_SIGNALS:
        os.kill(os.getpid(), number)


def test_an_interrupt_lost_in_a_garbage_collection_is_raised_again_without_a_message(monkeypatch, capfd):
    monkeypatch.setattr(interrupts, "REPEAT_WINDOW_S", 0.1)
    sent = []

    def collecting(*_):
        if not sent:
            sent.append("in a callback")
            os.kill(os.getpid(), signal.SIGTERM)

    def work():
        gc.collect()
        sent.append("and lost")
        time.sleep(5)

    gc.callbacks.append(collecting)
    try:
        install_handlers()
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        gc.callbacks.remove(collecting)
    assert sent == ["in a callback", "and lost"]
    assert "Exception ignored" not in capfd.readouterr().err


def test_an_error_caused_by_an_interrupt_is_reported_as_a_stop(monkeypatch, capsys):
    def interrupted_clean_up(*_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("the workers are gone") from None

    monkeypatch.setattr(cli, "_load", interrupted_clean_up)
    install_handlers()
    assert cli.command(["plan", "fwi.toml"]) == 75
    assert capsys.readouterr().err == "hpcfwi: stopped\n"


def test_a_handled_interrupt_is_not_raised_again(monkeypatch):
    monkeypatch.setattr(interrupts, "REPEAT_WINDOW_S", 0.05)
    install_handlers()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    ignore_signals()
    for number in interrupts.STOP_SIGNALS:
        os.kill(os.getpid(), number)
    time.sleep(0.2)


def test_a_delayed_interrupt_is_raised_once_after_the_block():
    done = []

    def work():
        with defer_interrupts():
            for number in interrupts.STOP_SIGNALS:
                os.kill(os.getpid(), number)
            done.append("all of it")

    install_handlers()
    with pytest.raises(KeyboardInterrupt):
        work()
    assert done
    with defer_interrupts():
        pass


def test_an_interrupt_during_an_import_waits_until_the_import_lock_is_released():
    """Another thread would wait for it for ever, and the end of the run for that thread."""
    install_handlers()
    amid = {}
    exec(compile("import sys; frame = sys._getframe()", "<frozen importlib._bootstrap>", "exec"), amid)
    interrupts._interrupt(signal.SIGINT, amid["frame"])
    assert interrupted()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(5)


def test_an_interrupt_during_exec_does_not_kill_the_process_by_signal(tmp_path):
    """Python remembers one, however it was caught, and ``python -m`` then ends by SIGINT."""
    (tmp_path / "interrupted_import.py").write_text("""
import hpcfwi.cli.main
from hpcfwi.__main__ import main

def command():
    try:
        exec("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    except KeyboardInterrupt:
        return 75

hpcfwi.cli.main.command = command
main()
""")
    assert subprocess.run([sys.executable, "-m", "interrupted_import"], cwd=tmp_path, check=False).returncode == 75
