"""Code of a model's making, shut in: what it may do, and what it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from intarsia.errors import BadInput
from intarsia.prompting.execute import sandbox
from intarsia.prompting.execute.sandbox import Limits, code_tool, run_code
from intarsia.prompting.execute.trust import is_untrusted

HOLDS = run_code("1", unsafe=True).isolation if os.name == "posix" else sandbox.Isolation()
needs_network = pytest.mark.skipif(not HOLDS.network, reason="nothing here keeps code from the network")
needs_files = pytest.mark.skipif(not HOLDS.files, reason="nothing here keeps code from files")
needs_processes = pytest.mark.skipif(not HOLDS.processes, reason="nothing here keeps code from other processes")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="a sandbox needs Unix")


def run(code: str, **options):
    return run_code(code, unsafe=True, **options)


def left() -> set[str]:
    import tempfile

    return {path.name for path in Path(tempfile.gettempdir()).glob("intarsia-code-*")}


def test_what_it_prints_and_what_its_last_line_is():
    ran = run("import math\nprint('hello')\n[1, math.sqrt(4), 'é']")
    assert (ran.stdout, ran.stderr, ran.code, ran.why) == ("hello\n", "", 0, "ended")
    assert ran.value == "[1, 2.0, 'é']" and ran.data == [1, 2.0, "é"]
    assert str(ran) == "hello\nvalue: [1, 2.0, 'é']"
    assert run("x = 1").value is None and str(run("x = 1")) == "done, nothing to show"
    assert run("{1}").data is None and run("{1}").value == "{1}"
    assert run("import asyncio\nasync def f():\n    return 3\nasyncio.run(f())").data == 3


def test_errors_are_told_as_python_tells_them():
    ran = run("def f():\n    return 1 / 0\nf()")
    assert ran.code == 1 and ran.stderr.startswith('Traceback (most recent call last):\n  File "<code>", line 3')
    assert ran.stderr.endswith("ZeroDivisionError: division by zero\n") and "sandbox" not in ran.stderr
    assert "SyntaxError" in run("x =").stderr
    assert run("import sys\nsys.exit(3)").code == 3 and "exit code 3" in str(run("raise SystemExit(3)"))


def test_it_starts_with_nothing(monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    ran = run("import os\n(dict(os.environ), os.listdir('.'), open(0).read())")
    assert ran.data == [{}, [], ""]


def test_files_in_and_out():
    ran = run(
        "import os\nopen('out/new.txt', 'w').write(open('in/a.txt').read() * 2)\nopen('b.bin', 'ab').write(b'!')",
        files={"in/a.txt": "hé", "b.bin": b"\0", "out/same.txt": "same"},
    )
    assert ran.files == {"out/new.txt": "héhé".encode(), "b.bin": b"\0!"} and ran.left_out == ()
    assert "out/new.txt (6 bytes)" in str(ran)
    for name in ("/etc/x", "../x", "a/../../x", ""):
        with pytest.raises(BadInput, match="no path in the folder"):
            run("1", files={name: "x"})


def test_links_out_of_its_folder_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    ran = run(f"import os\nos.symlink({str(secret)!r}, 'a')\nos.symlink({str(tmp_path)!r}, 'd')\nos.mkfifo('p')")
    assert ran.code == 0 and ran.files == {} and set(ran.left_out) <= {"a", "d", "p"} and "a" in ran.left_out
    assert secret.read_text() == "secret"


def test_it_ends_when_its_time_is_over():
    before = left()
    ran = run("while True: pass", limits=Limits(processor=1, seconds=60))
    assert ran.why == "processor" and ran.code < 0
    ran = run("print('a', flush=True)\nimport time\ntime.sleep(60)", limits=Limits(seconds=0.7))
    assert ran.why == "time" and ran.stdout == "a\n" and ran.seconds < 20 and "its time was over" in str(ran)
    assert left() <= before


def test_memory_output_and_disk_have_ends():
    assert "MemoryError" in run("x = []\nwhile True: x.append(bytearray(10**7))", limits=Limits(memory=10**8)).stderr
    ran = run("for i in range(3000): print('x' * 100)", limits=Limits(output=1000))
    assert ran.code == 0 and ran.stdout == ("x" * 100 + "\n") * 9 + "x" * 91 + "\n[cut after 1000 bytes]"
    assert "too large" in run("open('a', 'wb').write(b'x' * 10**6)\nopen('b', 'wb').write(b'x' * 10**8)").stderr
    ran = run(
        "import time\nfor i in range(9):\n    open(str(i), 'wb').write(b'x' * 10**6)\ntime.sleep(30)",
        limits=Limits(disk=5 * 10**6),
    )
    assert ran.why == "disk" and ran.seconds < 20
    assert "Too many open files" in run("x = [open('a', 'w') for _ in range(40)]").stderr
    assert len(run("'x' * 10**6").value) < 70_000


@needs_processes
def test_no_other_processes():
    ran = run("import os\nwhile True: os.fork()")
    assert "PermissionError" in ran.stderr and ran.code == 1
    assert "PermissionError" in run("import subprocess\nsubprocess.run(['/bin/echo', 'x'])").stderr
    assert "PermissionError" in run("import os\nos.execv('/bin/sh', ['sh'])").stderr
    assert "PermissionError" in run(f"import os\nos.kill({os.getpid()}, 15)").stderr
    assert run("import threading as t\nw = t.Thread(target=print, args=('in',))\nw.start(); w.join()").stdout == "in\n"
    raising = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))"
    assert run(raising).code == 1


@needs_network
def test_no_network():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        heard = []

        def listen():
            server.settimeout(3)
            with contextlib.suppress(TimeoutError):
                heard.append(server.accept())

        listening = threading.Thread(target=listen)
        listening.start()
        ran = run(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)")
        ran_ = run("import socket\nsocket.getaddrinfo('localhost', 80)\nsocket.socket(socket.AF_UNIX)")
        socket.create_connection(("127.0.0.1", port)).close()  # the server was there all along
        listening.join()
    assert ran.code == 1 and "Error" in ran.stderr and ran_.code == 1
    assert len(heard) == 1


@needs_files
def test_no_files_of_the_machine(tmp_path):
    (tmp_path / "secret").write_text("x")
    for path in ("/etc/passwd", str(Path.home()), str(tmp_path / "secret"), __file__, "/proc/self/environ", "/tmp"):
        opened = f"import os\np = {path!r}\nos.listdir(p) if os.path.isdir(p) else open(p).read()"
        assert "PermissionError" in run(opened).stderr or "FileNotFoundError" in run(opened).stderr, path
    assert run(f"open({str(tmp_path / 'new')!r}, 'w')").code == 1 and not (tmp_path / "new").exists()
    assert run(f"import os\nos.remove({str(tmp_path / 'secret')!r})").code == 1
    mode = (tmp_path / "secret").stat().st_mode
    run(f"import os\nos.chmod({str(tmp_path / 'secret')!r}, 0o777)")
    assert (tmp_path / "secret").read_text() == "x" and (tmp_path / "secret").stat().st_mode == mode


def test_packages_are_there_when_asked_for():
    assert "ModuleNotFoundError" in run("import pydantic").stderr
    ran = run("import pydantic\npydantic.VERSION[:2]", packages=True, limits=Limits(memory=2**31))
    assert ran.data == "2.", ran.stderr


def test_where_nothing_holds_it_is_refused(monkeypatch, tmp_path):
    """On a kernel that gives none of it."""
    bare = tmp_path / "kernel.py"
    names = ("without_network", "within_folders", "without_calls")
    stubs = "".join(f"\n\ndef {name}(*given):\n    return False\n" for name in names)
    bare.write_text(sandbox._KERNEL.read_text() + stubs)
    monkeypatch.setattr(sandbox, "_KERNEL", bare)
    monkeypatch.setattr(sandbox, "_bubblewrap", lambda: None)
    with pytest.raises(BadInput, match="unsafe=True"):
        run_code("open('ran', 'w')")
    ran = run_code("1 + 1", unsafe=True)
    assert ran.data == 2 and ran.isolation == sandbox.Isolation()
    assert ran.isolation.missing == "not isolated: network, files, processes"


@needs_network
def test_what_holds_is_told():
    ran = run_code("1")  # not refused
    assert "network" not in ran.isolation.missing and ran.isolation == HOLDS


def test_bubblewrap_s_command_shows_only_what_is_needed(tmp_path):
    command = sandbox._wrapped("/usr/bin/bwrap", tmp_path, ["/usr/lib", "/dev/zero"])
    assert command[0] == "/usr/bin/bwrap" and command[-1] == "--" and "--unshare-all" in command
    bound = [command[i + 1] for i, part in enumerate(command) if part in ("--ro-bind", "--bind")]
    assert set(bound) == {
        "/usr/lib",
        str(tmp_path),
        *map(str, {Path(sys.executable).parent, Path(sys.executable).resolve().parent}),
    }
    writable = [command[i + 1] for i, part in enumerate(command) if part == "--bind"]
    assert writable == [str(tmp_path)]


def test_as_a_tool():
    made = code_tool(unsafe=True)
    assert made.name == "python" and made.parameters["required"] == ["code"]
    result = asyncio.run(made.run({"code": "print(2)\n40 + 2"}))
    assert result == "2\nvalue: 42" and is_untrusted(result)
