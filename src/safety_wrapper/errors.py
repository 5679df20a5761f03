"""Every error of the engine. Imports nothing of ours.

::

    SafetyError
    ├── ConfigError                 at start: always fatal
    │   └── PluginLoadError         NotAllowListedError UnknownHookError AsyncImplError WrapperRefusedError
    │                               DuplicateOwnerError
    ├── CanonicalError              a value that has no canonical form: the call is malformed
    ├── BundleError                 at activation: last-known-good stays; at start without one: everything is blocked
    │   └── BundleSignatureError BundleRollbackError BundleExpiredError BundleFormatError
    ├── StageError                  a stage could not answer: the call is blocked, the text withheld
    │   └── ClassifyError DeadlineError RunnerError AdapterError RedactError LedgerError
    │           LedgerError: LedgerCorruptError LedgerGoneError LedgerFullError
    ├── WireError                   a frame or a request that is not one: answered once, then the connection closes
    └── RefusedError                not a fault: an owner's request that the state machine does not admit

Messages are fixed text plus names of ours, never a value of the call: an exception may be logged anywhere.
"""

from __future__ import annotations


def where(exc: BaseException) -> str:
    """An unexpected exception as a log may show it: its kind and place, never its text."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(exc).__name__
    name = trace.tb_frame.f_code.co_filename.rpartition("/")[2]
    return f"{type(exc).__name__} at {name}:{trace.tb_lineno}"


class SafetyError(Exception):
    """Root of all errors raised by the engine itself. ``do`` says what the reader can do about it."""

    code = "internal"

    def __init__(self, message: str, *, do: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.do = do


class ConfigError(SafetyError):
    """Raised at start by config and registry. The caller corrects the file named; nothing was started."""

    code = "config"


class PluginLoadError(ConfigError):
    """A plugin can't be loaded as it is. The engine refuses to start."""

    code = "plugin"


class NotAllowListedError(PluginLoadError):
    """The distribution is not on the allow list, or its name, version or content hash differs from the list's."""


class UnknownHookError(PluginLoadError):
    """A plugin implements a hook that the contract does not have (a spelling mistake would be silent otherwise)."""


class AsyncImplError(PluginLoadError):
    """A hook is implemented async where the contract says sync, or the other way round."""


class WrapperRefusedError(PluginLoadError):
    """Hook wrappers and optional hooks can swallow a refusal; none is admitted."""


class DuplicateOwnerError(PluginLoadError):
    """Two plugins claim what only one may own (a tool, the release of secrets)."""


class CanonicalError(SafetyError):
    """A value has no canonical form: non-finite number, integer of 2^53 or more, lone surrogate, wrong type, depth."""

    code = "bad_request"


class BundleError(SafetyError):
    """A policy bundle can't be taken into force. The last-known-good one stays; without one everything is blocked."""

    code = "bundle"


class BundleSignatureError(BundleError):
    """Not signed by enough of the trusted keys, or altered after signing."""


class BundleRollbackError(BundleError):
    """Older than the version floor, or the floor's version with other bytes."""


class BundleExpiredError(BundleError):
    """Past its expiry and the grace after it."""


class BundleFormatError(BundleError):
    """Not a bundle: unparsable, too big, an unknown key, a rule whose examples fail."""


class StageError(SafetyError):
    """A stage could not answer. The engine blocks the call or withholds the text."""

    code = "unavailable"


class ClassifyError(StageError):
    """A classifier raised, answered with a wrong type, or there is none."""


class DeadlineError(StageError):
    """A stage did not answer in its time."""

    code = "deadline"


class RunnerError(StageError):
    """The runner is away or refused to start the program."""


class AdapterError(StageError):
    """A tool adapter could not do its work."""


class RedactError(StageError):
    """The vault is away: text is withheld."""

    code = "withheld"


class LedgerError(StageError):
    """Nothing could be recorded, so nothing runs."""


class LedgerCorruptError(LedgerError):
    """The ledger's chain, seal or file is damaged. Refused until an administrator looks at it."""

    code = "corrupt"


class LedgerGoneError(LedgerError):
    """The ledger file was deleted or replaced under the running core."""


class LedgerFullError(LedgerError):
    """The disk is full. Reading verbs still work; free space, then the engine continues by itself."""


class WireError(SafetyError):
    """A frame or request that is not one. ``code`` is one of the closed list of docs/reference/schemas.md."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RefusedError(SafetyError):
    """The state machine does not admit this step (expired, already decided, another digest was shown)."""

    code = "refused"
