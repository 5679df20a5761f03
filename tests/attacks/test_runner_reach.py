"""A hostile program in the sandbox reaches for what is not its own. Each refusal has a twin that is allowed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from unit.runner.harness import OTHER_UID, ROOT, RunnerProcess, place, started

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def runner() -> Iterator[RunnerProcess]:
    with place() as installation, started(installation) as running:
        yield running


def as_python_text(value: object) -> str:
    return repr(str(value))


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_child_reads_the_ledger_key(runner: RunnerProcess) -> None:
    """Even where the file's mode would let it: the place is not there."""
    key = runner.config.paths.ledger_key
    key.write_text("KEY")
    key.chmod(0o644)
    outcome = runner.shell(f"cat {key}; ls {key.parent}; cat /proc/self/root{key}")
    assert "KEY" not in outcome.stdout
    assert outcome.exit != 0
    assert "outside the agent's folders" in runner.file("read", str(key)).error
    copy = runner.place.work / "ledger.key"
    copy.write_text("KEY")
    copy.chmod(0o644)
    assert runner.shell("cat ledger.key").stdout == "KEY"


def test_a_child_reads_another_uids_file(runner: RunnerProcess) -> None:
    private = runner.place.work / "private.txt"
    private.write_text("PRIVATE")
    private.chmod(0o600)
    if ROOT:
        os.chown(private, OTHER_UID, OTHER_UID)
    else:
        private.chmod(0)
    assert "PRIVATE" not in runner.shell("cat private.txt").stdout
    assert "permission denied" in runner.file("read", "private.txt").error
    private.chmod(0o604 if ROOT else 0o600)
    assert runner.shell("cat private.txt").stdout == "PRIVATE"


@pytest.mark.parametrize("path", ["/etc/shadow", "/root", "/home", "/var", "/run", "/sys", "/boot", "/etc/ssh", "/srv"])
def test_a_child_looks_at_the_hosts_files(runner: RunnerProcess, path: str) -> None:
    assert runner.run("/bin/ls", "-d", path).exit == 2
    assert runner.run("/bin/ls", "-d", "/work").exit == 0


@pytest.mark.parametrize(
    "path", ["/usr/x", "/etc/x", "/etc/passwd", "/x", "/dev/x", "/library/x", "/proc/sys/kernel/x"]
)
def test_a_child_writes_outside_its_folders(runner: RunnerProcess, path: str) -> None:
    assert runner.shell(f"echo x > {path}").exit == 1
    assert runner.shell("echo x > /work/x && echo x > /tmp/x && echo x > /dev/shm/x").exit == 0


def test_a_child_remounts_a_read_only_folder(runner: RunnerProcess) -> None:
    assert runner.shell("mount -o remount,rw /library; mount -t tmpfs t /tmp; umount /dev").exit != 0
    assert runner.shell("echo x > /library/book.txt").exit == 1
    assert runner.shell("cat /library/book.txt").stdout == "chapter one\n"


# ── sockets and network ──────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def listening(address: str | tuple[str, int], family: int = socket.AF_UNIX) -> Iterator[socket.socket]:
    """A server of the host that greets whoever connects."""
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.bind(address)
        server.listen()

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with server.accept()[0] as peer:
                        peer.sendall(b"GREETING")

        thread = threading.Thread(target=greet)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


CONNECT = """
import socket, sys
s = socket.socket({family}, socket.SOCK_STREAM)
s.settimeout(5)
try:
    s.connect({address})
    print(s.recv(100).decode())
except OSError as exc:
    print(type(exc).__name__)
"""


@pytest.mark.parametrize("name", ["agent", "admin", "runner"])
def test_a_child_connects_to_each_socket(runner: RunnerProcess, name: str) -> None:
    path = runner.config.paths.socket(name, f"{name}.sock")
    with contextlib.ExitStack() as stack:
        if name != "runner":
            stack.enter_context(listening(str(path)))
            path.chmod(0o777)
        code = CONNECT.format(family="socket.AF_UNIX", address=as_python_text(path))
        assert runner.python(code).stdout == "FileNotFoundError\n"


def test_a_socket_that_the_owner_put_into_the_workspace_is_reached(runner: RunnerProcess) -> None:
    """The twin: it is the place, not the kind, that keeps the engine's sockets away."""
    path = runner.place.work / "own.sock"
    with listening(str(path)):
        path.chmod(0o777)
        code = CONNECT.format(family="socket.AF_UNIX", address=as_python_text("/work/own.sock"))
        assert runner.python(code).stdout == "GREETING\n"
    path.unlink()


def test_loopback_of_the_host_is_refused(runner: RunnerProcess) -> None:
    with listening(("127.0.0.1", 0), socket.AF_INET) as server:
        code = CONNECT.format(family="socket.AF_INET", address=server.getsockname())
        assert runner.python(code).stdout == "ConnectionRefusedError\n"


def test_the_internet_is_refused(runner: RunnerProcess) -> None:
    code = CONNECT.format(family="socket.AF_INET", address=("192.0.2.1", 80))
    assert runner.python(code).stdout == "OSError\n"
    interfaces = runner.python("import socket; print([name for _, name in socket.if_nameindex()])")
    assert interfaces.stdout == "['lo']\n"


def test_abstract_sockets_of_the_host_are_refused(runner: RunnerProcess) -> None:
    name = f"\0sw-test-{os.getpid()}"
    with listening(name):
        code = CONNECT.format(family="socket.AF_UNIX", address=repr(name))
        assert runner.python(code).stdout == "ConnectionRefusedError\n"


OWN_SERVER = """
import socket
server = socket.socket({family})
server.bind({address})
server.listen()
client = socket.socket({family})
client.connect(server.getsockname())
server.accept()[0].sendall(b"OWN")
print(client.recv(10).decode())
"""


@pytest.mark.parametrize(
    ("family", "address"),
    [("socket.AF_INET", ("127.0.0.1", 0)), ("socket.AF_UNIX", "\0own"), ("socket.AF_UNIX", "/tmp/s")],
)
def test_servers_inside_the_sandbox_work(runner: RunnerProcess, family: str, address: object) -> None:
    assert runner.python(OWN_SERVER.format(family=family, address=repr(address))).stdout == "OWN\n"


@pytest.mark.parametrize("family", [40, 38, 17, 31, 21])  # vsock, alg, packet, bluetooth, rds
def test_socket_families_that_no_namespace_holds_are_refused(runner: RunnerProcess, family: int) -> None:
    code = f"import socket, errno\ntry: socket.socket({family})\nexcept OSError as e: print(errno.errorcode[e.errno])"
    assert runner.python(code).stdout == "EAFNOSUPPORT\n"
    assert runner.python(code.replace(f"socket({family})", "socket(16, socket.SOCK_RAW)")).stdout == ""


# ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_child_looks_into_proc_of_the_host(runner: RunnerProcess) -> None:
    seen = runner.shell("ls /proc | grep -c '^[0-9]'; cat /proc/[0-9]*/environ /proc/1/cmdline").stdout
    assert int(seen.split()[0]) < 12
    assert "process_api" not in seen
    assert "pytest" not in seen
    assert runner.run("/bin/cat", f"/proc/{runner.pid}/cmdline").exit == 1
    assert runner.shell("cat /proc/self/comm").stdout == "cat\n"


def test_the_proc_of_the_sandbox_changes_no_setting_of_the_kernel(runner: RunnerProcess) -> None:
    for name in ("kernel/hostname", "kernel/core_pattern", "vm/drop_caches", "net/ipv4/ip_forward"):
        assert runner.shell(f"echo 1 > /proc/sys/{name}").exit == 1
    assert runner.shell("cat /proc/sys/kernel/hostname").stdout == "sandbox\n"


PTRACE = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
child = os.fork()
if child == 0:
    signal.pause()
for pid in ({pid}, child):
    print(libc.ptrace(16, pid, 0, 0), end=" ")
os.kill(child, 9)
"""


def test_a_child_ptraces_a_process_of_the_host(runner: RunnerProcess) -> None:
    """The first is the runner, outside; the second a process of the sandbox, which it may."""
    assert runner.python(PTRACE.format(pid=runner.pid)).stdout == "-1 0 "


def test_a_child_signals_processes_of_the_host(runner: RunnerProcess) -> None:
    code = f"import os\ntry: os.kill({runner.pid}, 9)\nexcept OSError as exc: print(type(exc).__name__)"
    assert runner.python(code).stdout == "ProcessLookupError\n"
    assert runner.shell("kill -9 -1; echo alive").exit in {0, 137}
    assert runner.shell("sleep 100 & kill $!; wait $!; echo $?").stdout == "143\n"


def test_a_child_makes_a_user_namespace(runner: RunnerProcess) -> None:
    for flags in ("-U", "-r", "-Urm", "-Urn"):
        assert runner.run("/usr/bin/unshare", flags, "/bin/true").exit != 0
    code = "import os\ntry: os.unshare({})\nexcept (OSError, AttributeError) as exc: print('refused')"
    assert runner.python(code.format(0x10000000)).stdout == "refused\n"
    assert runner.run("/bin/true").exit == 0


def test_a_setuid_program_gains_nothing(runner: RunnerProcess) -> None:
    copy = runner.place.work / "id-as-root"
    shutil.copy("/usr/bin/id", copy)
    copy.chmod(0o4755)
    assert runner.run("/work/id-as-root", "-u").stdout == "1000\n"
    assert runner.shell("grep -E 'CapEff|CapPrm|CapBnd|NoNewPrivs' /proc/self/status").stdout.split() == [
        "CapPrm:", "0" * 16, "CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1",
    ]  # fmt: skip
    assert runner.shell("su -c id root < /dev/null").exit != 0


def test_a_child_gives_its_own_file_to_root(runner: RunnerProcess) -> None:
    """A setuid file made inside stays the runner's own, and serves nobody outside."""
    made = runner.shell("cp /usr/bin/id mine && chmod 4755 mine && chown root mine")
    assert made.exit != 0
    assert (runner.place.work / "mine").stat().st_uid == runner.place.uid


# ── terminal, keys, system calls ─────────────────────────────────────────────────────────────────────────────────

TERMINAL = """
import fcntl, os, pty, termios
try:
    os.open("/dev/tty", os.O_RDWR)
    print("terminal", end=" ")
except OSError:
    print("none", end=" ")
master, slave = pty.openpty()
try:
    fcntl.ioctl(slave, termios.TIOCSTI, b"x")
    print("typed", end=" ")
except OSError as exc:
    print(exc.errno, end=" ")
print(fcntl.ioctl(slave, termios.FIONREAD, b"1234"), os.getsid(0) == os.getpid() or os.getsid(0) > 0)
"""


def test_a_child_types_into_a_terminal(runner: RunnerProcess) -> None:
    """No controlling terminal, no TIOCSTI; harmless requests on a terminal of its own work."""
    terminal, typed, rest = runner.python(TERMINAL).stdout.split(" ", 2)
    assert (terminal, typed) == ("none", "1")
    assert rest.startswith("b'")


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (250, "0, -3, 0"),
        (248, "b'user', b'a', b'b', 1"),
        (321, "0, 0, 0"),
        (425, "1, 0"),
        (323, "0"),
        (298, "0, 0"),
    ],
)
def test_system_calls_past_the_namespaces_are_refused(runner: RunnerProcess, call: int, arguments: str) -> None:
    """keyctl, add_key, bpf, io_uring_setup, userfaultfd, perf_event_open: on x86_64 by these numbers."""
    code = "import ctypes, errno; c = ctypes.CDLL(None, use_errno=True); print(c.syscall({}), ctypes.get_errno())"
    if os.uname().machine == "x86_64":
        assert runner.python(code.format(f"{call}, {arguments}")).stdout == "-1 1\n"
    assert runner.python(code.format("0x7fff0000")).stdout in {"-1 38\n", "-1 1\n"}
    assert runner.python("import os; print(os.getpid() > 0)").stdout == "True\n"


def test_a_sandbox_inherits_nothing_of_the_runner(runner: RunnerProcess) -> None:
    """No descriptor, no variable, no name of the host. (The fourth descriptor is the listing's own.)"""
    for words in (("/bin/ls", "/proc/self/fd"), ("/bin/bash", "-c", "ls /proc/self/fd")):
        for stdin in (None, b"given"):
            assert runner.run(*words, stdin=stdin).stdout.split() == ["0", "1", "2", "3"]
    assert Path("/etc/hostname").read_text().strip() not in runner.shell("hostname; cat /etc/hosts").stdout.split()
