"""The command ``bench``."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest

from tests.cli.conftest import Run
from wsframe.cli.bench import command
from wsframe.cli.bench.codecs import PEERS, TASKS, Codec, Decoding, Encoding, installed
from wsframe.cli.program import version

QUICK = ("--rounds", 1, "--slice", 0.0001)


def test_the_output_is_one_block_with_the_machine_and_a_table(run: Run) -> None:
    ran = run("bench", *QUICK)
    assert ran.code == 0
    first, machine, unit, peers, empty, head, line, *rows = ran.out
    assert first == version()
    assert machine.endswith(f"{os.cpu_count()} cores")
    assert unit.startswith("nanoseconds for a frame")
    assert "websockets and wsproto" in peers
    assert "aiohttp and picows" in peers
    assert empty == ""
    names = head.strip("| ").split(" | ")
    assert names[0] == "wsframe"
    assert names[1].startswith("websockets ")
    assert names[2].startswith("wsproto ")
    assert line.count("---") == 1 + len(names)
    assert [row.strip("| ").split(" | ")[0] for row in rows] == [str(task) for task in TASKS]
    for row in rows:
        assert all(int(figure.replace(",", "")) >= 0 for figure in row.strip("| ").split(" | ")[1:])


def test_a_peer_that_is_missing_has_no_column(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    assert [codec.name for codec in installed()] == ["wsframe"]


@pytest.mark.parametrize(
    "task", [Decoding(16, text=True, frames=2), Encoding(16, client=True)], ids=str
)
def test_a_wrong_result_is_not_measured(task: Any) -> None:
    wrong = Codec("wrong", lambda: lambda data: [], lambda client: lambda message: b"\x82\x00")
    with pytest.raises(ValueError, match="wrong returns a wrong result"):
        wrong.calls(task)


@pytest.mark.parametrize(
    ("load", "busy"), [((0.2, 0, 0), False), ((99.0, 0, 0), True), (None, False)]
)
def test_a_busy_machine_is_mentioned(
    run: Run, monkeypatch: pytest.MonkeyPatch, load: tuple[float, int, int] | None, busy: bool
) -> None:
    def average() -> tuple[float, int, int]:
        if load is None:
            raise OSError("unknown")
        return load

    monkeypatch.setattr(os, "getloadavg", average)
    monkeypatch.setattr(command, "installed", list)
    assert any("The machine was busy" in line for line in run("bench", *QUICK).err) == busy


@pytest.mark.parametrize("content", [None, "processor : 0\n"])
def test_the_processor_is_named_without_its_list(
    run: Run, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    def opened(*_: object, **__: object) -> io.StringIO:
        if content is None:
            raise OSError("no such file")
        return io.StringIO(content)

    monkeypatch.setattr(command, "open", opened, raising=False)
    monkeypatch.setattr("platform.processor", lambda: "a processor")
    monkeypatch.setattr(command, "installed", list)
    assert run("bench", *QUICK).out[1].startswith("a processor, ")


def test_the_help_names_the_peers(run: Run) -> None:
    assert PEERS in " ".join(" ".join(run("bench", "--help").out).split())
