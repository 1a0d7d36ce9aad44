"""Hostile input in bulk: every case is read or refused with one message, soon, in little memory, and within its own folder.

A test names how many cases it stands for (``@pytest.mark.cases``) and hands a strategy and a check to the fixture ``fuzz``.
Without ``--slow`` a tenth of them runs. They are the same ones every time; other ones are drawn with

    pytest tests/fuzz --slow --hypothesis-seed=random      (or a number, to have them again)
"""

from __future__ import annotations

import faulthandler
import os
import re
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Matplotlib creates its folder below HOME and lists the fonts when it is first imported: before any case is watched.
import matplotlib.font_manager  # noqa: F401
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcfwi.errors import HpcfwiError

# Seconds for one case; after STUCK seconds of one that a signal does not end, all of pytest ends with a traceback.
DEADLINE, STUCK = 20, 120
# Bytes that a case may ask for, beyond what the process has.
MEMORY = 512 * 2**20
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Of an audit event: which argument is a path, which one its folder's descriptor, and whether a link is followed.
PATHS: dict[str, tuple[tuple[int, int, bool], ...]] = {
    "open": ((0, -1, True),),
    "os.mkdir": ((0, 2, False),),
    "os.remove": ((0, 1, False),),
    "os.rmdir": ((0, 1, False),),
    "os.rename": ((0, 2, False), (1, 3, False)),
    "os.link": ((1, 3, False),),
    "os.symlink": ((1, 2, False),),
    "os.chmod": ((0, 2, True),),
    "os.chown": ((0, 3, True),),
    "os.truncate": ((0, -1, True),),
    "os.utime": ((0, 3, True),),
    "os.setxattr": ((0, -1, True),),
}
NEVER = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.connect", "socket.bind")
ran: dict[str, int] = {}


class Watch:
    """Sees what this process does to files, and stops it before it touches one outside of a folder.

    An audit hook cannot be taken away again: this one is idle while ``folder`` is None, and in threads of earlier tests.
    """

    def __init__(self) -> None:
        self.folder: str | None = None
        self.others: set[int | None] = set()
        self.seen: list[str] = []
        self.unpickled: list[str] = []
        sys.addaudithook(self._hook)

    def begin(self, folder: Path) -> None:
        """Watch from now on."""
        self.seen, self.unpickled = [], []
        self.others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        self.folder = str(folder.resolve())

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or threading.get_ident() in self.others:
            return
        if event == "pickle.find_class":
            self.unpickled.append(".".join(map(str, arguments)))
        elif event in NEVER:
            self._refuse(event, repr(arguments[0]))
        elif event == "open" and not arguments[2] & WRITES:
            return
        else:
            for index, folder, follow in PATHS.get(event, ()):
                if not isinstance(arguments[index], int):
                    self._judge(event, arguments[index], arguments[folder] if folder > 0 else -1, follow)

    def _judge(self, event: str, path: Any, folder: int, follow: bool) -> None:
        name = os.path.join(f"/proc/self/fd/{folder}" if folder != -1 else "", os.fsdecode(path))  # noqa: PTH118
        parent, last = os.path.split(name)
        real = os.path.realpath(name) if follow else os.path.join(os.path.realpath(parent), last)  # noqa: PTH118
        if real != "/dev/null" and not f"{real}/".startswith(f"{self.folder}/"):
            self._refuse(event, real)

    def _refuse(self, event: str, what: str) -> None:
        folder, self.folder = self.folder, None
        self.seen.append(f"{event} {what}, outside of {folder}")
        pytest.fail(self.seen[-1])


watch = Watch()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if ran:
        terminalreporter.write_line(f"{sum(ran.values())} hostile cases were tried in {len(ran)} tests of tests/fuzz")


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> int:
    """How many cases this test tries."""
    marker = request.node.get_closest_marker("cases")
    return marker.args[0] if request.config.getoption("--slow") else -(-marker.args[0] // 10)


@pytest.fixture
def fuzz(request, cases, tmp_path, monkeypatch) -> Iterator[Callable[[st.SearchStrategy, Callable], None]]:
    """Calls ``check(folder, value)`` for every case, each in a folder of its own, which is the current one, too.

    Files from elsewhere may be read, none may be written.
    """
    where = tmp_path / "cases"
    where.mkdir()
    monkeypatch.chdir(where)
    name = request.node.nodeid
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])

    def alarm(*_: object) -> None:
        pytest.fail(f"no end after {DEADLINE} s")

    def fuzz(strategy: st.SearchStrategy, check: Callable[[Path, Any], None]) -> None:
        before = ran.setdefault(name, 0)

        def case(value: Any) -> None:
            ran[name] += 1
            folder = where / f"{ran[name]:05d}"
            folder.mkdir(mode=0o700)
            signal.alarm(DEADLINE)
            faulthandler.dump_traceback_later(STUCK, exit=True)
            os.chdir(folder)
            watch.begin(folder)
            try:
                check(folder, value)
            finally:
                watch.folder = None
                signal.alarm(0)
                faulthandler.cancel_dump_traceback_later()
                os.chdir(where)
            assert not watch.seen
            shutil.rmtree(folder)

        settings(
            max_examples=cases,
            derandomize=request.config.getoption("--hypothesis-seed") is None,
            database=None,
            deadline=1000 * DEADLINE,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )(given(strategy)(case))()
        assert ran[name] - before >= cases

    previous = signal.signal(signal.SIGALRM, alarm)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    try:
        yield fuzz
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def unpickled() -> Callable[[], list[str]]:
    """Names that unpickling has asked for in the present case."""
    return lambda: watch.unpickled


@pytest.fixture
def error_of() -> Callable[..., str]:
    """Call a function and return the message of its error, which names one of ``places``; empty without an error."""

    def error_of(call: Callable[[], object], *places: object) -> str:
        try:
            call()
        except HpcfwiError as error:
            message = str(error)
            assert message.strip()
            assert any(str(place) in message for place in places), message[:1000]
            assert len(message) < 20_000, f"a message of {len(message)} characters"
            return message
        return ""

    return error_of


# Bad values: in files, between delimiters, in place of a word.
WORDS = [
    *(b"nan", b"-inf", b"inf", b"0", b"-0.0", b"-1", b"1", b"2", b"1e400", b"1e308", b"5e-324", b"1e-30", b"1e18"),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"1" * 5000, b"0x" + b"f" * 5000),
    *(b"1_000", b"0x1p99999", b"1,5", b"true", b"false", b"null", b"None", b"1970-01-01", b"07:32:00", b"12:00:00"),
    *(b"", b" ", b'""', b"''", b'"', b"'", b"#", b",", b";", b"=", b".", b"..", b"[", b"]", b"{}", b"[]", b"[[]]"),
    *(b'"' + b"x" * 10_000 + b'"', b"x" * 140_000, b"," * 1000, b"[" * 1500, b'{"a":' * 1500, b"a." * 700 + b"a"),
    *(
        b"\0",
        b'"\\u0000"',
        b'"\\ud800"',
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        "١٢".encode(),
        "\u2028".encode(),
    ),
    *(b"\r", b"\n", b"\r\n", b"\x0b", b"\x1b[31m", b"${HOME}", b"$HOME", b"${NOT_SET}", b"%s", b"{0}", b"[/b]"),
    *(b'"/dev/zero"', b'"/etc/passwd"', b'"../../outside"', b'"~"', b'"~nobody/x"', b'"/proc/self/mem"', b'"."'),
]
TOKEN = re.compile(rb"[A-Za-z0-9_.+-]+|\"[^\"\n]*\"|'[^'\n]*'")


def _replace_word(draw: Callable, content: bytes) -> bytes:
    found = list(TOKEN.finditer(content))
    if not found:
        return content
    start, end = draw(st.sampled_from(found)).span()
    return content[:start] + draw(st.sampled_from(WORDS)) + content[end:]


def _insert(draw: Callable, content: bytes) -> bytes:
    at = draw(st.integers(0, len(content)))
    return content[:at] + draw(st.sampled_from(WORDS) | st.binary(max_size=20)) + content[at:]


def _flip(draw: Callable, content: bytes) -> bytes:
    if not content:
        return content
    at = draw(st.integers(0, len(content) - 1))
    return content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))]) + content[at + 1 :]


def _delete(draw: Callable, content: bytes) -> bytes:
    start, end = sorted((draw(st.integers(0, len(content))), draw(st.integers(0, len(content)))))
    return content[:start] + content[end:]


def _cut(draw: Callable, content: bytes) -> bytes:
    return content[: draw(st.integers(0, len(content)))]


def _shuffle_lines(draw: Callable, content: bytes) -> bytes:
    lines = content.split(b"\n")
    line = draw(st.sampled_from(lines))
    lines.insert(draw(st.integers(0, len(lines))), line)
    if draw(st.booleans()):
        lines.remove(line)
    return b"\n".join(lines)


def _repeat(draw: Callable, content: bytes) -> bytes:
    return content * draw(st.sampled_from([2, 20]))


def _encode(draw: Callable, content: bytes) -> bytes:
    changed = {
        "with a byte order mark": b"\xef\xbb\xbf" + content,
        "from Windows": content.replace(b"\n", b"\r\n"),
        "from an old Macintosh": content.replace(b"\n", b"\r"),
        "UTF-16": content.decode("latin-1").encode("utf-16"),
        "compressed": b"\x1f\x8b\x08\x00" + content,
    }
    return changed[draw(st.sampled_from(list(changed)))]


CHANGES = [_replace_word] * 6 + [_insert] * 2 + [_flip, _delete, _cut, _shuffle_lines, _repeat, _encode]


@st.composite
def _mutated(draw: Callable, *originals: bytes) -> bytes:
    content = draw(st.sampled_from(originals))
    for change in draw(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=4)):
        content = change(draw, content)[:300_000]
    return content


FINITE = [
    0.0,
    -0.0,
    -1.0,
    5e-324,
    1e-30,
    1e-6,
    0.1,
    0.5,
    1.0,
    2.5,
    3.0,
    15.0,
    100.0,
    1e4,
    1e8,
    1.0000001e8,
    1e18,
    1e308,
]
# none drawn that are subnormal: once a kernel of Devito's is loaded (-ffast-math), this process takes them for zero
NUMBERS = st.sampled_from([*FINITE, float("nan"), float("inf"), -float("inf")]) | st.floats(allow_subnormal=False)
WHOLE = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 7, 8, 31, 1000, 1001, 10**5, 2**31, 2**63, 2**64, 10**400])
TEXTS = st.sampled_from([word.decode("utf-8", "surrogatepass") for word in WORDS if b"\xff" not in word])
SCALARS = st.none() | st.booleans() | WHOLE | NUMBERS | TEXTS | st.text(max_size=20)
# A list, or a section, of other things than were asked for.
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def hostile() -> SimpleNamespace:
    """Strategies: ``mutated(*originals)`` are bytes that once were sound, ``values`` are what JSON and TOML can say."""
    return SimpleNamespace(
        mutated=_mutated, values=VALUES, scalars=SCALARS, numbers=NUMBERS, whole=WHOLE, texts=TEXTS, words=WORDS
    )
