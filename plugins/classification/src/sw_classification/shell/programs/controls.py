"""What keeps the agent safe, and what starts things behind its back: touching it is an effect of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sw_classification.facts import Fact
from sw_classification.shell.programs.arguments import Program

if TYPE_CHECKING:
    from sw_classification.shell.walk import Walker


def _control(what: str) -> Program:
    def program(walker: Walker, argv: list[str], piped: bool) -> None:
        walker.add(Fact("control", "control", what, program=argv[0], argv=tuple(argv)))

    return program


PROGRAMS: Final[dict[str, Program]] = {
    "safety-wrapper": _control("the safety wrapper"),
    "openclaw": _control("the gateway"),
    **dict.fromkeys(["nft", "iptables", "ip6tables", "iptables-restore", "ufw", "firewall-cmd", "ipset", "ip", "tc", "route"], _control("firewall rules")),
    **dict.fromkeys(["crontab", "at", "batch", "atrm", "systemd-run"], _control("scheduled jobs")),
    **dict.fromkeys(["visudo", "sudoedit"], _control("sudo rules")),
    **dict.fromkeys(["insmod", "modprobe", "rmmod", "sysctl", "setenforce", "aa-disable", "aa-complain", "auditctl"], _control("the kernel")),
    **dict.fromkeys(["mount", "umount", "losetup", "swapoff", "swapon", "nsenter", "unshare", "setcap", "ptrace", "strace"], _control("the system")),
    **dict.fromkeys(["mitmproxy", "mitmdump", "mitmweb", "bwrap"], _control("the sandbox or firewall")),
}  # fmt: skip
