"""Programs that reach other machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sw_classification.facts import Fact
from sw_classification.shell.programs.arguments import Program, read
from sw_classification.symbolic import UNKNOWN, is_literal
from sw_classification.web import METHODS, request_fact

if TYPE_CHECKING:
    from sw_classification.shell.walk import Walker

_CURL_TAKING: Final = (
    "-d",
    "--data",
    "--data-raw",
    "--data-binary",
    "--data-urlencode",
    "--json",
    "-F",
    "--form",
    "-T",
    "--upload-file",
    "-o",
    "--output",
    "-X",
    "--request",
    "-H",
    "--header",
    "-u",
    "--user",
    "-A",
    "--user-agent",
    "-e",
    "--referer",
    "-b",
    "--cookie",
    "-c",
    "--cookie-jar",
    "-m",
    "--max-time",
    "--connect-timeout",
    "-x",
    "--proxy",
    "--resolve",
    "--cacert",
    "--cert",
    "--key",
    "-K",
    "--config",
    "-w",
    "--write-out",
    "--retry",
    "-D",
    "--dump-header",
    "--url",
    "-E",
    "-r",
    "--range",
    "--limit-rate",
    "-C",
    "-y",
    "-Y",
    "-z",
)
_SENDS: Final = frozenset(["-d", "--data", "--data-raw", "--data-binary", "--data-urlencode", "--json", "-F", "--form", "-T", "--upload-file", "-u", "--user", "-b", "--cookie", "--cert", "-E", "-e", "--referer", "-A", "--user-agent"])  # fmt: skip
_PLAIN_HEADERS: Final = ("accept:", "accept-language:", "accept-encoding:", "cache-control:", "range:")


def _curl(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, _CURL_TAKING)
    if arguments.has("-K", "--config", "-x", "--proxy", "--socks5", "--unix-socket", "--resolve", "--connect-to"):
        walker.opaque("curl is told by a file or a proxy where it goes")
    sends = any(option in _SENDS for option, _ in arguments.values)
    for option, value in arguments.values:
        if option in {"-H", "--header"} and not value.lower().startswith(_PLAIN_HEADERS):
            sends = True
        if (option in _SENDS and value.lstrip("=").startswith("@")) or option in {"-T", "--upload-file"}:
            walker.path("read", value.lstrip("=@"), "curl")
        if option in {"-F", "--form"} and "=@" in value:
            walker.path("read", value.partition("=@")[2].partition(";")[0], "curl")
        if option in {"-o", "--output", "-D", "--dump-header", "-c", "--cookie-jar"} and value != "-":
            walker.path("write", value, "curl", "overwrite")
    if arguments.has("-O", "--remote-name", "-J"):
        walker.path("write", ".", "curl")
    method = arguments.value("-X", "--request") or ("HEAD" if arguments.has("-I", "--head") else "GET")
    if arguments.has("-G", "--get"):
        sends = True
    elif sends and arguments.value("-X", "--request") is None:
        method = "POST"
    urls = [*arguments.operands, *(v for o, v in arguments.values if o == "--url")]
    for url in urls or [UNKNOWN]:
        _request(walker, argv, method, url, carries=sends)


def _request(walker: Walker, argv: list[str], method: str, url: str, *, carries: bool) -> None:
    if not is_literal(url):
        walker.add(Fact("send", "url", url, program=argv[0], argv=tuple(argv), external=True, unresolved=True))
        return walker.opaque("where the request goes is not known")
    if any(char in url for char in "{}[]"):
        return walker.opaque("the address stands for several")
    method = method if method in METHODS else "POST"
    fact = request_fact(
        method, url, carries=carries, policy=walker.policy, findings=walker.findings, scheme="http", program=argv[0],
        argv=tuple(argv),
    )  # fmt: skip
    walker.add(fact)
    return None


def _wget(walker: Walker, argv: list[str], piped: bool) -> None:
    taking = ("-O", "--output-document", "-P", "--directory-prefix", "--post-data", "--post-file", "--body-data", "--body-file",
              "--header", "--method", "-U", "--user", "--password", "-i", "-o", "-T", "-t", "-e", "--execute")  # fmt: skip
    arguments = read(argv, taking)
    if arguments.has("-i", "--input-file", "-e", "--execute", "--use-askpass", "-r", "--recursive", "-m", "--mirror"):
        walker.opaque("wget is told elsewhere what it fetches")
    sends = arguments.has(
        "--post-data", "--post-file", "--body-data", "--body-file", "--header", "--user", "--password"
    )
    for option, value in arguments.values:
        if option in {"--post-file", "--body-file"}:
            walker.path("read", value, "wget")
    target = arguments.value("-O", "--output-document")
    if target != "-":
        walker.path("write", target or arguments.value("-P", "--directory-prefix") or ".", "wget", "overwrite")
    method = arguments.value("--method") or ("POST" if arguments.has("--post-data", "--post-file") else "GET")
    for url in arguments.operands or (UNKNOWN,):
        _request(walker, argv, method, url, carries=sends)


def _remote(walker: Walker, argv: list[str], piped: bool) -> None:
    """A shell, a copy or a raw connection elsewhere: what happens there can't be seen."""
    walker.add(
        Fact("send", "host", " ".join(argv[1:]), program=argv[0], argv=tuple(argv), external=True, unresolved=True)
    )
    walker.opaque(f"{argv[0]} reaches another machine, and what it does there is not known")


def _lookup(walker: Walker, argv: list[str], piped: bool) -> None:
    """A name that is asked for leaves the tenant."""
    for host in read(argv, ("-c", "-t", "-p", "-W", "-w", "-i", "-s")).operands or (UNKNOWN,):
        walker.add(Fact("send", "host", host, program=argv[0], argv=tuple(argv), host=host, external=True))


def _mail(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, ("-s", "-a", "-A", "-c", "-b", "-r", "-S", "-f", "-F"))
    for option, value in arguments.values:
        if option in {"-a", "-A"}:
            walker.path("read", value, argv[0])
    inside = walker.policy.tenant.domains
    for to in arguments.operands or (UNKNOWN,):
        outside = not any(to.lower().endswith("@" + domain) for domain in inside)
        walker.add(Fact("send", "recipient", to, program=argv[0], argv=tuple(argv), recipient=to, external=outside))


def _rsync(walker: Walker, argv: list[str], piped: bool) -> None:
    arguments = read(argv, ("-e", "--rsh", "--exclude", "--include", "--files-from", "--exclude-from"))
    if any(":" in operand for operand in arguments.operands) or arguments.has("-e", "--rsh"):
        return _remote(walker, argv, piped)
    for path in arguments.operands[:-1]:
        walker.path("read", path, "rsync", "recursive")
        if arguments.has("--remove-source-files"):
            walker.path("delete", path, "rsync", "recursive")
    for path in arguments.operands[-1:]:
        walker.path("write", path, "rsync", "overwrite", "recursive")
        if any(option.startswith("--del") for option in arguments.options):
            walker.path("delete", path, "rsync", "recursive")
    return None


PROGRAMS: Final[dict[str, Program]] = {
    "curl": _curl, "wget": _wget, "rsync": _rsync,
    **dict.fromkeys(["ssh", "scp", "sftp", "nc", "ncat", "netcat", "socat", "telnet", "ftp", "lftp", "rclone", "restic", "borg", "aws", "gcloud", "az", "s3cmd", "mosh", "rsh"], _remote),
    **dict.fromkeys(["ping", "ping6", "dig", "host", "nslookup", "traceroute", "mtr", "whois", "getent"], _lookup),
    **dict.fromkeys(["mail", "mailx", "sendmail", "mutt", "msmtp", "swaks"], _mail),
}  # fmt: skip
