"""The command ``serve``: python -m wsframe.server [module:app]."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import flask
import pytest
from django.core.handlers.wsgi import WSGIHandler
from starlette.applications import Starlette

from tests.support.certificates import Certificates
from tests.support.clients import Client, Response, StreamClient, WebSocketClient, get
from tests.support.processes import COMMAND, ServerProcess, run
from tests.support.tools import missing_tool
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Close
from wsframe.cli import loading, serve
from wsframe.cli.options import SETTINGS
from wsframe.cli.sources import Configuration
from wsframe.server import App, Settings
from wsframe.server.sockets.listening import Listening
from wsframe.testing import ReservedPort

PROGRAM = """
import os
from wsframe.server import App

application, pids = App(), App()
number = 42
loaded = os.getpid()

@pids.websocket("/pid")
def pid(ws):
    ws.send(f"{loaded} {os.getppid()}")

@application.websocket("/hello/{name}")
def hello(ws, name):
    ws.send(f"hello {name}")
"""


posix = pytest.mark.skipif(sys.platform == "win32", reason="workers are POSIX's")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with a user's modules in it."""
    (tmp_path / "shop.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "package" / "live.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "broken.py").write_text("import not_there_at_all\n", encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("name", ["shop:application", "package.live:application"])
def test_the_command_imports_the_app_from_the_current_directory(directory: Path, name: str) -> None:
    with ServerProcess(*COMMAND, name, "--port", "0", directory=directory) as process:
        client = WebSocketClient(process.port, "/hello/you")
        assert client.next_event() == "hello you"
        client.expect_close()
        process.signal(signal.SIGTERM)
        code, output = process.wait()
        assert code == (0 if sys.platform != "win32" else code)
        assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_server_listens_on_the_given_host_and_port(host: str) -> None:
    with (
        ReservedPort() as port,
        ServerProcess(*COMMAND, "--host", host, "--port", str(port)) as process,
    ):
        assert process.url == f"http://{host}:{port}"
        client = WebSocketClient(port, "/hello")
        assert client.next_event() == "Hello world!"
        client.leave()


def test_help_names_the_options() -> None:
    result = run([sys.executable, *COMMAND, "--help"])
    assert result.returncode == 0
    assert not result.stderr
    flags = [setting.flag for setting in SETTINGS.values() if setting.flag is not None]
    for word in ("module:app", "demo", "9292", "--config", *flags):
        assert word in result.stdout


@pytest.mark.parametrize("workers", [0, 2])
def test_the_settings_reach_the_server(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    served: list[tuple[object, ...]] = []

    def run(start: object, *arguments: object) -> None:
        served.append(arguments)

    monkeypatch.setattr(serve, "run", run)
    given = [f"--workers={workers}", "--port=0", "--max-threads=3", "--trusted-proxy=::1"]
    assert serve.main(given, "wsframe serve") == 0
    settings = Settings(max_threads=3, trusted_proxies=["::1"])
    assert served == [("localhost", 0, workers, settings)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--redis", "http://localhost"], "--redis: "),
        (
            ["--redis", "redis://localhost", "--redis-prefix", "a b"],
            "--redis: invalid prefix of Redis keys",
        ),
    ],
)
def test_invalid_options_for_redis_are_named_in_one_line(
    directory: Path, arguments: list[str], message: str
) -> None:
    pytest.importorskip("redis")
    result = run(
        [sys.executable, *COMMAND, "shop:application", "--port", "0", *arguments], directory
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(message)


@pytest.mark.slow
@pytest.mark.unmeasured
@posix
def test_workers_load_the_app_themselves(directory: Path) -> None:
    with ServerProcess(
        *COMMAND, "shop:pids", "--workers", "2", "--port", "0", directory=directory
    ) as process:
        client = WebSocketClient(process.port, "/pid")
        loaded, parent = str(client.next_event()).split()
        assert int(loaded) != process.pid
        assert int(parent) == process.pid
        client.expect_close()
        process.signal(signal.SIGTERM)
        assert process.wait() == (0, "Shutting down; press Ctrl-C again to force.\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shop"], "expected module:app, got 'shop'"),
        (["shop:"], "expected module:app, got 'shop:'"),
        ([":app"], "expected module:app, got ':app'"),
        ([".shop:application"], "expected module:app, got '.shop:application'"),
        (["--port", "65536"], "expected a port from 0 to 65535"),
        (["--port", "-1"], "expected a port from 0 to 65535"),
        (["--port", "http"], "expected a port from 0 to 65535"),
        (["--workers", "many"], "expected a non-negative integer, got 'many'"),
        (["--loops", "-1"], "expected a non-negative integer, got '-1'"),
        (["--drain", "long"], "expected a finite number of seconds that is at least 0, got 'long'"),
        (["--drain", "-1"], "seconds that is at least 0, got '-1'"),
        (
            ["--send-timeout", "inf"],
            "expected a finite number of seconds that is at least 0, got 'inf'",
        ),
        (["--max-threads", "0"], "max_threads must be at least 1: 0 (--max-threads)"),
        (["--max-handler-threads", "0"], "max_handler_threads must be at least 1"),
        (["--reserve-threads", "0"], "reserve_threads must be at least 1"),
        (["--max-thread-share", "half"], "expected a number from 0 to 1, got 'half'"),
        (["--max-thread-share", "0"], "max_thread_share must be greater than 0"),
        (
            ["--max-thread-share", "1.5"],
            "max_thread_share must be greater than 0 and at most 1",
        ),
        (["--socket-buffer", "9999999999"], "socket_buffer must be at most"),
        (
            ["--trusted-proxy", "nonsense"],
            'or IPv6 network (trusted_proxies are addresses, networks such as "10.0',
        ),
        (["--hosts", "shop.example:80"], "the host 'shop.example:80' can never match"),
        (["--hosts", "localhost,"], "the host '' can never match"),
        (["--unix", "s", "--fd", "3"], "fds and unix cannot be combined (--fd, --unix)"),
        (["--reload", "--workers", "2"], "reload cannot be combined with workers or fds"),
        (["--fd", "stdin"], "expected a non-negative integer, got 'stdin'"),
        (["--unix-mode", "600"], "require unix"),
        (["--unix-mode", "999"], "expected permissions in octal such as 660, got '999'"),
        (["--unix", "s", "--unix-group", "no such"], "no such group: 'no such'"),
        (["--key", "key.pem"], "key requires cert"),
        (["--cert", "none.pem"], "cannot read none.pem: No such file"),
        (
            ["--cert", "shop.py", "--key", "shop.py"],
            "shop.py does not contain a certificate in PEM format",
        ),
        (["--nothing"], "unrecognized arguments: --nothing"),
    ],
)
def test_an_invalid_argument_is_named_in_one_line(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(directory)
    with pytest.raises(SystemExit) as exit_:
        serve.main(arguments, "wsframe serve")
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err.splitlines()[-1]
    assert not printed.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing:app"], "no module named 'nothing'"),
        (["package.nothing:app"], "no module named 'package.nothing'"),
        pytest.param(
            ["nothing.at.all:app"], "no module named 'nothing.at.all'", marks=pytest.mark.unmeasured
        ),
        (["shop:nothing"], "module 'shop' has no attribute 'nothing'"),
        (["shop:number"], "'number' in module 'shop' is not an App"),
        pytest.param(
            ["shop.py:application"], "no module named 'shop.py'", marks=pytest.mark.unmeasured
        ),
        (["nothing:app", "--workers", "2", "--port", "0"], "no module named 'nothing'"),
        (
            ["shop:number", "--workers", "2", "--port", "0"],
            "'number' in module 'shop' is not an App",
        ),
        (["--host", "no such host", "--workers", "2"], "cannot listen on no such host:9292: "),
        (["--metrics", "numbers"], "--metrics: a path must begin with a slash"),
        (["--metrics", "/"], "--metrics: '/' already has a route"),
        (["--topic-memory=0"], "--topic-memory: topic_memory must be positive: 0"),
        pytest.param(
            ["--unix", "none/s"],
            "cannot listen on none/s: No such file",
            marks=pytest.mark.unmeasured,
        ),
        (["--unix", "x" * 200], f"cannot listen on {'x' * 200}: AF_UNIX path too long"),
        pytest.param(
            ["--unix", "shop.py"],
            "cannot listen on shop.py: the path is in use by a file that is not a unix socket",
            marks=pytest.mark.unmeasured,
        ),
        pytest.param(
            ["--host", "no such host", "--port", "0"],
            "cannot listen on no such host:0: ",
            marks=pytest.mark.unmeasured,
        ),
        pytest.param(
            ["--nothing"], "unrecognized arguments: --nothing", marks=pytest.mark.unmeasured
        ),
    ],
)
def test_an_error_at_startup_is_one_line(
    directory: Path, arguments: list[str], message: str
) -> None:
    result = run([sys.executable, *COMMAND, *arguments], directory)
    assert result.returncode != 0
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not result.stdout


def test_the_error_names_the_way_to_serve_an_application_of_another_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("foreign")
    found = {
        "flask": flask.Flask("foreign"),
        "django": WSGIHandler.__new__(WSGIHandler),  # without settings
        "starlette": Starlette(),
        "wsgi": lambda environ, start_response: [],
    }
    vars(module).update(found)
    monkeypatch.setitem(sys.modules, "foreign", module)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    remedies = {
        "flask": "gthread --threads 4 foreign:flask (wsframe.flask adds",
        "django": "gthread --threads 4 foreign:django (wsframe.django adds",
        "starlette": "uvicorn --ws wsframe.uvicorn:WebSocketProtocol foreign:starlette",
        "wsgi": "serve a WSGI application with gunicorn",
    }
    for name, remedy in remedies.items():
        configuration = Configuration({"app": f"foreign:{name}"}, {"app": "app"})
        with pytest.raises(SystemExit, match=re.escape(remedy)) as exit_:
            loading.start(configuration, Listening, Settings())
        assert str(exit_.value).startswith(f"'{name}' in module 'foreign' is not an App")


def test_topic_memory_limits_the_topics_and_otherwise_the_program_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[int] = []
    monkeypatch.setattr(App, "limit_topics", lambda app, memory: limits.append(memory))
    module = ModuleType("limited")
    vars(module)["app"] = App(topic_memory=5000)
    monkeypatch.setitem(sys.modules, "limited", module)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    values = {name: setting.default for name, setting in SETTINGS.items()}
    for memory in (None, 10_000):
        given = {**values, "app": "limited:app", "topic_memory": memory}
        loading.start(Configuration(given, {}), Listening, Settings()).stop()
    assert limits == [5000, 10_000]


@pytest.mark.parametrize("source", ["WSFRAME_APP", "settings.toml: app"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.here:app", "no module named 'nothing.here'"),
        ("shop:nothing", "module 'shop' has no attribute 'nothing'"),
        ("shop:number", "'number' in module 'shop' is not an App"),
    ],
)
def test_the_error_for_an_app_names_the_variable_or_the_file(
    monkeypatch: pytest.MonkeyPatch, source: str, name: str, message: str
) -> None:
    module = ModuleType("shop")
    vars(module)["number"] = 5
    monkeypatch.setitem(sys.modules, "shop", module)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    with pytest.raises(SystemExit) as exit_:
        loading.start(Configuration({"app": name}, {"app": source}), Listening, Settings())
    assert str(exit_.value) == f"{message} ({source})"


@pytest.mark.slow
def test_a_certificate_enables_tls(directory: Path, certificates: Certificates) -> None:
    program = shutil.which("curl")
    if program is None:
        missing_tool("curl")
    certificates.write(directory)
    files = ("--cert", "cert.pem", "--key", "key.pem")
    with ServerProcess(*COMMAND, "--port", "0", *files, directory=directory) as process:
        assert process.url == f"https://localhost:{process.port}"
        curl = [program, "-sS", "-N", "--cacert", str(directory / "ca.pem")]
        result = run([*curl, f"{process.url}/"])
        assert "<title>" in result.stdout
        result = run([*curl, "--max-time", "2.5", f"{process.url}/time"])
        assert re.search(r"data: \d\d:\d\d:\d\d\n\n", result.stdout)
        client = WebSocketClient(process.port, "/hello", tls=certificates.client)
        assert client.next_event() == "Hello world!"
        client.leave()


@posix
def test_workers_use_tls(directory: Path, certificates: Certificates) -> None:
    certificates.write(directory)
    command = (*COMMAND, "shop:pids", "--workers", "2", "--port", "0", "--cert", "both.pem")
    with ServerProcess(*command, directory=directory) as process:
        assert process.url == f"https://localhost:{process.port}"
        client = WebSocketClient(process.port, "/pid", tls=certificates.client)
        _, parent = str(client.next_event()).split()
        assert int(parent) == process.pid
        client.expect_close()


def test_connections_beyond_max_connections_are_refused() -> None:
    with ServerProcess(*COMMAND, "--port", "0", "--max-connections", "1") as process:
        client = WebSocketClient(process.port, "/hello")
        assert client.next_event() == "Hello world!"
        assert Client(process.port).answer().status == 503
        client.leave()


@pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets")
def test_the_file_of_a_unix_socket_exists_while_the_server_runs(directory: Path) -> None:
    command = [sys.executable, *COMMAND, "--unix", "s", "--unix-mode=640", "--unix-group"]
    command.append(str(os.getgid()))
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=directory, text=True) as process:
        try:
            assert process.stdout is not None
            url = f"http+unix://{quote(str(directory / 's'), safe='')}"
            assert process.stdout.readline().startswith(f"Serving on {url}; ")
            assert (directory / "s").stat().st_mode == stat.S_IFSOCK | 0o640
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()
    assert not (directory / "s").exists()


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run([sys.executable, *COMMAND, "--host", "127.0.0.1", "--port", str(port)])
    assert result.returncode == 1
    assert result.stderr.startswith(f"cannot listen on 127.0.0.1:{port}: Address already in use: ")
    assert result.stderr.endswith("use another port (port)\n")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", pytest.param("3", marks=posix)])
def test_an_error_in_the_users_module_has_its_traceback(directory: Path, workers: str) -> None:
    options = ("--port", "0", "--workers", workers)
    result = run([sys.executable, *COMMAND, "broken:app", *options], directory)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "Traceback (most recent call last):",
        f'  File "{directory / "broken.py"}", line 1, in <module>',
        "    import not_there_at_all",
        "ModuleNotFoundError: No module named 'not_there_at_all'",
    ]


def test_a_syntax_error_in_the_users_module_has_its_file_line_and_caret(directory: Path) -> None:
    (directory / "broken.py").write_text("import os\nx = 1 +\n")
    result = run([sys.executable, *COMMAND, "broken:app", "--port", "0"], directory)
    assert result.returncode == 1
    file, line, caret, error = result.stderr.splitlines()
    assert file == f'  File "{directory / "broken.py"}", line 2'
    assert (line, caret) == ("    x = 1 +", "           ^")
    assert error == "SyntaxError: invalid syntax"


TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def ask(process: ServerProcess, target: str, *headers: tuple[str, str]) -> Response:
    client = Client(process.port)
    try:
        client.send(get(target, *headers))
        return client.answer()
    finally:
        client.close()


@pytest.mark.slow
def test_nothing_is_logged_by_default() -> None:
    with ServerProcess(*COMMAND, "--port", "0") as process:
        assert ask(process, "/").status == 200
        assert ask(process, "/source").status == 200
        assert ask(process, "/metrics").status == 404
        process.signal(signal.SIGTERM)
        code, output = process.wait()
        lines = [line for line in output.splitlines() if "GET" in line]
        # A refusal is logged with its reason; a request is not.
        assert (code, len(lines)) == (0, 1)
        assert 'GET "/metrics"' in lines[0]
        assert "is refused with 404" in lines[0]


def test_the_access_log() -> None:
    with ServerProcess(*COMMAND, "--port", "0", "--access-log") as process:
        ask(process, "/?token=secret")
        process.expect(re.compile(rf'^{TIME} 127\.0\.0\.1 "GET /" 200 seconds=\d+\.\d{{3}} bytes='))


def test_the_log_in_json(directory: Path) -> None:
    (directory / "bad.py").write_text(f"{PROGRAM}\n    1 / 0\n", encoding="utf-8")
    options = ("--port", "0", "--log-format", "json", "--access-log", "--trusted-proxy=127.0.0.1")
    with ServerProcess(*COMMAND, "bad:application", *options, directory=directory) as process:
        client = WebSocketClient(process.port, "/hello/you", ("X-Forwarded-For", "203.0.113.7"))
        assert client.next_event() == "hello you"
        assert client.expect_close().code == 1011
        error = json.loads(process.expect(re.compile(r"^{.*}$"))[0])
        assert (error["level"], error["logger"]) == ("ERROR", "wsframe.server")
        assert error["message"] == "the handler of /hello/you failed"
        assert error["traceback"].endswith("ZeroDivisionError: division by zero")
        line = json.loads(process.expect(re.compile(r"^{.*}$"))[0])
        assert (line["logger"], line["client"]) == ("wsframe.access", "203.0.113.7")
        assert (line["path"], line["close_code"]) == ("/hello/you", 1011)


@pytest.mark.slow
@posix
@pytest.mark.parametrize("workers", ["0", "2"])
def test_in_json_the_lines_about_the_states_of_the_server_are_objects(
    directory: Path, certificates: Certificates, workers: str
) -> None:
    certificates.write(directory)
    options = ("--cert=cert.pem", "--key=key.pem", f"--workers={workers}", "--log-format=json")
    started = re.compile(r'^{.*"message": "Serving on https://.*}$')
    command = (*COMMAND, "shop:application", "--port=0", "--drain=0", *options)
    line = re.compile("^.*$")
    with ServerProcess(*command, directory=directory, until=started) as process:
        process.signal(signal.SIGHUP)
        records = [json.loads(process.expect(line)[0]) for _ in range(2)]
        (directory / "cert.pem").write_text("broken")
        process.signal(signal.SIGHUP)
        records += [json.loads(process.expect(line)[0]) for _ in range(3)]
        process.signal(signal.SIGTERM)
        code, rest = process.wait()
    records += map(json.loads, rest.splitlines())
    problem = "keeping the old certificate, because the new one cannot be used: cert.pem does not"
    outcome = "Not reloaded: " if workers == "0" else "Reloaded only in part: "
    expected = [
        ("INFO", "Reloading."),
        ("INFO", "Reloaded."),
        ("INFO", "Reloading."),
        ("ERROR", problem),
        ("INFO", f"{outcome}{problem}"),
        ("INFO", "Shutting down; press Ctrl-C again to force."),
    ]
    for record, (level, message) in zip(records, expected, strict=True):
        assert (record["level"], record["logger"]) == (level, "wsframe.server")
        assert re.fullmatch(TIME, record["time"])
        assert record["message"].startswith(message)
    assert code == 0


JSON = "--log-format=json"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([JSON, "shop:nothing"], 1, "module 'shop' has no attribute 'nothing'"),
        ([JSON, "broken:app"], 1, "ModuleNotFoundError: No module named 'not_there_at_all'"),
        pytest.param(
            [JSON, "broken:app", "--port=0", "--workers=1"],
            1,
            "ModuleNotFoundError: No module named 'not_there_at_all'",
            marks=posix,
        ),
        ([JSON, "lines:app"], 1, "ValueError: boom\\nsecond line"),
        pytest.param(
            [JSON, "lines:app", "--port=0", "--workers=1"],
            1,
            "ValueError: boom\\nsecond line",
            marks=posix,
        ),
        ([JSON, "ending:app"], 1, "line one\\nline two"),
        pytest.param(
            [JSON, "ending:app", "--port=0", "--workers=1"],
            1,
            "line one\\nline two",
            marks=posix,
        ),
        ([JSON, "--host", "no such host"], 1, "cannot listen on no such host:9292: "),
        ([JSON, "--cert=none.pem"], 2, "cannot read none.pem: No such file"),
        ([JSON, "--reload", "--workers=2"], 2, "reload cannot be combined with workers or fds"),
        (["--log-format", "json", "--nothing"], 2, "unrecognized arguments: --nothing"),
        (["--log-format=text", "--log-f", "json", "--nothing"], 2, "unrecognized arguments: "),
        (["--config", "json.toml"], 2, "max_thread_share must be "),
    ],
)
def test_an_error_at_startup_is_an_object_in_json(
    directory: Path, arguments: list[str], code: int, message: str
) -> None:
    (directory / "json.toml").write_text('log_format = "json"\nmax_thread_share = 3\n')
    (directory / "lines.py").write_text('raise ValueError("boom\\nsecond line")\n')
    (directory / "ending.py").write_text('raise SystemExit("line one\\nline two")\n')
    result = run([sys.executable, *COMMAND, *arguments], directory)
    assert (result.returncode, result.stdout) == (code, "")
    record = json.loads(result.stderr)
    assert (record["level"], record["message"][: len(message)]) == ("CRITICAL", message)
    assert ("traceback" in record) is bool({"broken:app", "lines:app"} & {*arguments})
    if "traceback" in record:
        assert record["traceback"].startswith("Traceback (most recent call last):\n  File ")


@pytest.mark.slow
def test_a_variable_for_json_applies_to_errors_in_arguments(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSFRAME_LOG_FORMAT", "json")
    result = run([sys.executable, *COMMAND, "--port=x"], directory)
    message = "argument --port: expected a port from 0 to 65535, got 'x'"
    assert json.loads(result.stderr)["message"] == message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "arguments"),
    [
        ("json", ["--log-format", "text"]),
        ("json", ["--log-format=json", "--log-format=text"]),
        ("text", ["--log-format=jsonx"]),
        ("", ["--log-format"]),
    ],
)
def test_the_last_option_decides_the_format_of_errors_in_arguments(
    directory: Path, monkeypatch: pytest.MonkeyPatch, variable: str, arguments: list[str]
) -> None:
    monkeypatch.setenv("WSFRAME_LOG_FORMAT", variable)
    result = run([sys.executable, *COMMAND, "--port=x", *arguments], directory)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: python -m wsframe.server ")


@pytest.mark.slow
def test_the_last_log_lines_are_written_before_the_exit() -> None:
    with ServerProcess(*COMMAND, "--port", "0", "--access-log", "--drain", "1") as process:
        clients = [WebSocketClient(process.port, "/echo") for _ in range(50)]
        process.signal(signal.SIGTERM)
        for client in clients:
            client.expect_close()
        code, output = process.wait()
        assert output.count("close=1001") == 50
        assert code == 0, output


@pytest.mark.slow
def test_a_module_that_configures_logging_keeps_its_configuration_except_with_json(
    directory: Path,
) -> None:
    configuration = "import logging\nlogging.basicConfig(format='mine: %(message)s')\n"
    (directory / "own.py").write_text(configuration + PROGRAM, encoding="utf-8")
    with ServerProcess(
        *COMMAND, "own:application", "--port", "0", "--access-log", directory=directory
    ) as process:
        ask(process, "/")
        process.expect(re.compile(rf'^mine: {TIME} 127\.0\.0\.1 "GET /" 404 '))
        process.signal(signal.SIGTERM)
        code, output = process.wait()
        assert (code, '"GET /"' in output) == (0, False)
    with ServerProcess(
        *(*COMMAND, "own:application", "--port", "0", "--log-format=json", "--access-log"),
        directory=directory,
    ) as process:
        ask(process, "/")
        process.signal(signal.SIGTERM)
        code, output = process.wait()
        assert code == 0, output
        assert output.count('"path": "/"') == 1
        assert "mine: " not in output


def test_the_option_metrics_serves_metrics() -> None:
    with ServerProcess(*COMMAND, "--port", "0", "--metrics", "/numbers") as process:
        answer = ask(process, "/numbers")
        assert answer.status == 200
        assert answer.body.endswith(b"# EOF\n")


@pytest.mark.slow
@posix
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_stop_begins_after_its_delay(workers: str) -> None:
    options = ("--port=0", "--health=/health", "--ready=/ready", "--stop-delay=1")
    with ServerProcess(*COMMAND, f"--workers={workers}", *options) as process:
        assert [ask(process, path).status for path in ("/health", "/ready")] == [200, 200]
        client = WebSocketClient(process.port, "/hello")
        assert client.next_event() == "Hello world!"
        begin = time.monotonic()
        process.signal(signal.SIGTERM)
        process.expect(re.compile("Shutting down"))
        wait_until(lambda: ask(process, "/ready").status == 503, "the server is not ready")
        assert client.expect_close().code == 1001
        assert time.monotonic() - begin >= 1
        assert process.wait()[0] == 0


@pytest.mark.slow
@posix
def test_the_log_level_is_an_option() -> None:
    with ServerProcess(*COMMAND, "--port", "0", "--log-level", "error") as process:
        assert ask(process, "/none").status == 404
        process.signal(signal.SIGTERM)
        code, output = process.wait()
        assert (code, "none" in output) == (0, False)


def test_the_first_line_names_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSFRAME_PURE", "1")
    line = re.compile(r"Serving on .* Kernels: pure Python \(slower")
    with ServerProcess(*COMMAND, "--port", "0", until=line) as process:
        process.signal(signal.SIGTERM)
        process.wait()


KINDS = """
from wsframe.server import App

app = App()

@app.websocket("/generator")
def generator(ws):
    while True:
        ws.send((yield))

@app.websocket("/plain")
def plain(ws):
    for message in ws:
        ws.send(message)

@app.sse("/count")
def count(stream):
    yield from range(3)
"""


@pytest.mark.slow
def test_a_server_on_the_pure_kernels_serves_each_kind_of_handler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WSFRAME_PURE", "1")
    (tmp_path / "kinds.py").write_text(KINDS)
    with ServerProcess(*COMMAND, "kinds:app", "--port", "0", directory=tmp_path) as process:
        for path in ("/generator", "/plain"):
            client = WebSocketClient(process.port, path)
            client.send_messages("a", b"b", "\u00e9", "x" * 100_000)
            assert client.expect(4) == ["a", b"b", "\u00e9", "x" * 100_000]
            assert client.leave() == Close(1000, "")
        stream = StreamClient(process.port, "/count")
        assert stream.expect(3) == ["0", "1", "2"]
        stream.expect_end()
        process.signal(signal.SIGTERM)
        assert process.wait()[0] == 0


@pytest.mark.parametrize("name", ["wsframe.__main__", "wsframe.server.__main__"])
def test_importing_the_command_starts_nothing(name: str) -> None:
    importlib.reload(importlib.import_module(name))
