"""Packages, services, containers, version control, databases, users: by subcommand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from sw_classification.facts import Fact
from sw_classification.shell.programs.arguments import Program, read
from sw_classification.symbolic import UNKNOWN, is_literal

if TYPE_CHECKING:
    from sw_classification.shell.walk import Walker

#: Units that keep the agent safe, or keep the administrator in.
_GUARDS: Final = ("safety-wrapper", "openclaw", "ssh", "nftables", "\x01", "\x02", "\x03")
#: What a subcommand does: kind of effect and resource; None = only looks.
type Deed = tuple[str, str] | None

_LOOKS: Final[Deed] = None


def _by_subcommand(
    deeds: Mapping[str, Deed], *, taking: tuple[str, ...] = (), network: frozenset[str] = frozenset()
) -> Program:
    """``docker volume rm x``: the longest known subcommand decides; an unknown one is opaque."""

    def program(walker: Walker, argv: list[str], piped: bool) -> None:
        arguments = read(argv, taking)
        words = arguments.operands
        name = next((" ".join(words[:n]) for n in (3, 2, 1) if len(words) >= n and " ".join(words[:n]) in deeds), None)
        if name is None:
            if arguments.has("--version", "--help", "-h", "-V") or not words:
                return None
            walker.add(Fact("execute", "process", argv[0], program=argv[0], argv=tuple(argv), unresolved=True))
            return walker.opaque(f"what {argv[0]} does here is not known")
        deed = deeds[name]
        if deed is None:
            return None
        values = words[len(name.split()) :] or (UNKNOWN if deed[0] == "delete" else "",)
        flags = {option.lstrip("-").replace("-", "_") for option in arguments.options}
        for value in values:
            if argv[0] == "systemctl" and value.startswith(_GUARDS):
                walker.add(Fact("control", "control", value, program="safety-wrapper", argv=tuple(argv)))
            walker.add(
                Fact(
                    deed[0], deed[1], value or f"{argv[0]} {name}", program=f"{argv[0]} {name}", argv=tuple(argv),
                    flags=frozenset(flags), external=name in network,
                    unresolved=deed[0] == "delete" and not is_literal(value),
                )
            )  # fmt: skip
        return None

    return program


def _deeds(**groups: tuple[str, Deed]) -> dict[str, Deed]:
    """``name=("a b|c", deed)``: subcommands apart by bars."""
    return {sub: deed for names, deed in groups.values() for sub in names.split("|")}


_PACKAGES: Final = _deeds(
    look=(
        "list|show|search|policy|depends|rdepends|check|info|freeze|view|ls|outdated|audit|config list|why|help|download",
        _LOOKS,
    ),
    install=("install|upgrade|update|full-upgrade|dist-upgrade|add|ci|sync|i|refresh", ("write", "package")),
    remove=("remove|purge|autoremove|uninstall|un|rm|erase|clean|autoclean", ("delete", "package")),
)
_SYSTEMCTL: Final = _deeds(
    look=(
        "status|show|list-units|list-timers|list-unit-files|is-active|is-enabled|is-failed|cat|get-default|help",
        _LOOKS,
    ),
    run=("start|restart|reload|try-restart|reload-or-restart|reset-failed", ("execute", "unit")),
    change=(
        "stop|disable|enable|mask|unmask|edit|daemon-reload|kill|set-property|isolate|revert|link",
        ("control", "unit"),
    ),
    down=("poweroff|reboot|halt|suspend|hibernate|rescue|emergency|kexec", ("control", "process")),
)
_DOCKER: Final = _deeds(
    look=("ps|images|logs|inspect|stats|top|version|info|port|diff|events|history|container ls|image ls|volume ls|network ls|"
          "container inspect|image inspect|volume inspect|network inspect|compose ps|compose logs|compose config|compose images|"
          "system df|container logs", _LOOKS),
    run=("start|restart|pull|compose up|compose start|compose restart|compose pull|compose build|build|tag|unpause|container start|"
         "image pull|network create|volume create|compose create", ("execute", "container")),
    stop=("stop|kill|pause|compose stop|container stop|update|rename", ("control", "container")),
    remove=("rm|container rm|compose down|compose rm|container prune|network rm|network prune", ("delete", "container")),
    images=("rmi|image rm|image prune|builder prune", ("delete", "image")),
    volumes=("volume rm|volume prune|system prune", ("delete", "volume")),
    push=("push|image push|compose push|login", ("send", "image")),
)  # fmt: skip
_KUBECTL: Final = _deeds(
    look=(
        "get|describe|logs|top|version|explain|api-resources|cluster-info|config view|diff|auth can-i|rollout status",
        _LOOKS,
    ),
    change=(
        "apply|create|scale|rollout restart|rollout undo|label|annotate|patch|set|edit|replace|expose|run",
        ("control", "container"),
    ),
    remove=("delete|drain|cordon", ("delete", "container")),
)
_TERRAFORM: Final = _deeds(
    look=("plan|show|validate|fmt|version|output|providers|graph|state list", _LOOKS),
    change=("apply|import|state mv|taint|init", ("control", "container")),
    remove=("destroy|state rm", ("delete", "container")),
)
_GIT: Final = _deeds(
    look=("status|log|diff|show|branch --list|remote -v|blame|shortlog|describe|rev-parse|ls-files|ls-tree|cat-file|grep|reflog|"
          "config --get|whatchanged|name-rev|merge-base|rev-list|count-objects|version|help|tag --list|stash list|worktree list", _LOOKS),
    change=("add|commit|checkout|switch|merge|rebase|stash|tag|branch|init|mv|cherry-pick|revert|fetch|pull|clone|restore|"
            "worktree add|apply|am|notes|remote|submodule|gc|lfs", ("write", "record")),
    remove=("reset|clean|rm|branch -D|stash drop|stash clear|update-ref|filter-branch|reflog expire|prune", ("delete", "record")),
    push=("push", ("send", "record")),
)  # fmt: skip


#: Options of git by which a look is none.
_GIT_RUNS_OR_WRITES: Final = (
    "-O", "--open-files-in-pager", "--output", "--no-index", "--contents", "--ext-diff", "--textconv", "-x", "--exec",
    "--upload-pack", "--receive-pack", "--template", "--separate-git-dir", "--config",
)  # fmt: skip


def _git(walker: Walker, argv: list[str], piped: bool) -> None:
    words = argv[1:]
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option == "-C" and words:
            walker.change_folder(words.pop(0))
        elif option in {"-c", "--config-env", "--exec-path"} or option.startswith(("-c", "--exec-path=")):
            walker.opaque("git is given settings that may run programs")
            words = words[1:] if option == "-c" else words
    sub = words[0] if words else ""
    if any(word.startswith(_GIT_RUNS_OR_WRITES) for word in words[1:]):
        return walker.opaque("an option of git runs a program, or reads or writes any file")
    for word in words[1:]:
        if ":" in word and not word.startswith((":", "-")) and "://" not in word:
            walker.path("read", word.partition(":")[2] or ".", "git")
    discards = (
        (
            sub in {"checkout", "restore", "switch"}
            and {"--", "-f", "--force", ".", "--discard-changes"} & set(words[1:])
        )
        or (sub == "restore" and "--staged" not in words)
        or (sub == "tag" and {"-d", "--delete"} & set(words[1:]))
        or (sub == "gc" and any(word.startswith("--prune") for word in words[1:]))
    )
    if discards:
        return walker.add(Fact("delete", "record", " ".join(words), program=f"git {sub}", argv=tuple(argv)))
    if sub in {"reset", "checkout", "restore"} and sub == "reset" and "--hard" not in words:
        return walker.add(Fact("write", "record", " ".join(words), program="git reset soft", argv=tuple(argv)))
    if sub in {"branch", "tag", "remote", "config", "stash"}:
        rest = words[1:]
        looks = not rest or rest[0] in {
            "-l",
            "--list",
            "-v",
            "-a",
            "-r",
            "--get",
            "show",
            "list",
            "-vv",
            "--show-current",
            "get-url",
        }
        if looks and not (sub == "stash" and not rest):
            return None
        if sub == "branch" and {"-D", "-d", "--delete"} & set(rest):
            return walker.add(Fact("delete", "record", " ".join(rest), program="git branch -D", argv=tuple(argv)))
        if sub == "config":
            return walker.opaque("a setting of git may run programs")
    if sub == "push":
        force = any(a.startswith(("-f", "--force", "--mirror", "--delete", "+", ":")) for a in words[1:])
        flags = frozenset({"force"}) if force else frozenset()
        walker.add(
            Fact("send", "record", " ".join(words), program="git push", argv=tuple(argv), flags=flags, external=True)
        )
        return None
    if sub in {"clone", "fetch", "pull", "submodule"}:
        walker.add(Fact("send", "host", " ".join(words), program=f"git {sub}", argv=tuple(argv), external=True))
    _by_subcommand(_GIT, taking=("-m", "--message", "-b", "-n", "--author"))(walker, ["git", *words], piped)
    return None


def _database(walker: Walker, argv: list[str], piped: bool) -> None:
    walker.add(Fact("execute", "database", argv[0], program=argv[0], argv=tuple(argv), unresolved=True))
    walker.opaque(f"what {argv[0]} does to the database is not known")


def _account(walker: Walker, argv: list[str], piped: bool) -> None:
    kind = "delete" if argv[0] in {"userdel", "deluser", "groupdel"} else "control"
    walker.add(Fact(kind, "account", " ".join(argv[1:]), program=argv[0], argv=tuple(argv)))


def _down(walker: Walker, argv: list[str], piped: bool) -> None:
    walker.add(Fact("control", "process", "this machine", program=argv[0], argv=tuple(argv)))


def _journal(walker: Walker, argv: list[str], piped: bool) -> None:
    if any(a.startswith(("--vacuum", "--rotate", "--flush")) for a in argv[1:]):
        walker.add(Fact("delete", "record", "system log", program="journalctl", argv=tuple(argv)))


def _service(walker: Walker, argv: list[str], piped: bool) -> None:
    _by_subcommand(_SYSTEMCTL)(walker, ["systemctl", *reversed(argv[1:3])], piped)


def _dpkg(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv)
    if arguments.has("-l", "-L", "-s", "-S", "-p", "--list", "--status", "--listfiles", "--search"):
        return
    kind = "delete" if arguments.has("-r", "-P", "--remove", "--purge") else "write"
    walker.add(Fact(kind, "package", " ".join(argv[1:]), program="dpkg", argv=tuple(argv), unresolved=kind == "write"))


PROGRAMS: Final[dict[str, Program]] = {
    **dict.fromkeys(["apt", "apt-get", "apt-cache", "aptitude", "dnf", "yum", "apk", "pip", "pip3", "uv", "npm", "pnpm", "yarn", "gem", "snap", "flatpak", "brew"],
                    _by_subcommand(_PACKAGES, taking=("-o", "-t"))),
    "dpkg": _dpkg,
    "systemctl": _by_subcommand(_SYSTEMCTL, taking=("-n", "-t", "-u", "--type", "--state")), "service": _service,
    "journalctl": _journal,
    "docker": _by_subcommand(_DOCKER, taking=("-f", "--file", "-p", "-n", "--tail", "--format", "--filter", "-t", "--since")),
    "podman": _by_subcommand(_DOCKER, taking=("-f", "--file", "-p", "-n", "--tail", "--format", "--filter", "-t", "--since")),
    "kubectl": _by_subcommand(_KUBECTL, taking=("-n", "--namespace", "-f", "-o", "-l", "-c", "--context")),
    "terraform": _by_subcommand(_TERRAFORM), "tofu": _by_subcommand(_TERRAFORM),
    "git": _git,
    **dict.fromkeys(["psql", "mysql", "mariadb", "sqlite3", "mongosh", "mongo", "redis-cli", "pg_dump", "pg_restore", "mysqldump", "dropdb", "createdb"], _database),
    **dict.fromkeys(["useradd", "adduser", "usermod", "userdel", "deluser", "groupadd", "groupdel", "groupmod", "gpasswd", "chpasswd", "passwd", "chsh"], _account),
    **dict.fromkeys(["shutdown", "reboot", "poweroff", "halt", "init", "telinit"], _down),
}  # fmt: skip
