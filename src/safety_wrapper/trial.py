"""Judge a call on trial: an example of a bundle's suite, or one that an author asks about. Nothing is recorded or run.

One code path with the hook: the same normalisation, classification and decision. Only the surroundings are given by
the caller; they are a type of their own, so that no peer of the bridge can ever supply them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from safety_wrapper import dispatch
from safety_wrapper.engine import Engine
from safety_wrapper.errors import BundleFormatError
from safety_wrapper.ledger.owner import OwnerView
from safety_wrapper.model import AutonomyLevel, CallContext, CallId, GateState, ToolKind
from safety_wrapper.naming import is_dotted, offered_name
from safety_wrapper.normalise import Catalogue, NotACallError, Proposal, normalise
from safety_wrapper.policy import Bundle, Policy, TenantFacts
from safety_wrapper.policy.bundle import thaw
from safety_wrapper.policy.suite import Verdict
from safety_wrapper.settle import Judgement, Limits
from safety_wrapper.standing import InForce, Standing

WORKSPACE: Final = "work"


@dataclass(frozen=True, slots=True)
class TrialContext:
    """What a trial may assume. Defaults are those of a tenant whose owner has said nothing."""

    cwd: str | None = None
    tenant_domains: tuple[str, ...] = ()
    internal_hosts: tuple[str, ...] = ()
    level: AutonomyLevel = AutonomyLevel.TRUSTED_ASSISTANT
    gate: GateState = GateState.LOCKED
    session: str = "agent:main:trial"


class Trial:
    """Judges calls by one bundle and one plan."""

    def __init__(self, plan: dispatch.Plan, bundle: Bundle) -> None:
        self._catalogue = Catalogue.of(bundle)
        # only judge paths are used: a trial has no ledger, no runner and no owner but the one it is given
        absent: Any = None
        standing: Standing = absent
        self._engine = Engine(absent, plan, standing, absent, Limits(0, 0, 0), {})

    def verdict(self, key: str, params: Mapping[str, Any], context: Mapping[str, Any]) -> Verdict:
        """What a suite compares with: the judgement of one case by its registry key."""
        judged = self.judge(key, params, context_of(context))
        c = judged.classification
        return Verdict(c.safety_class, c.external, judged.outcome, c.rules, c.reason)

    def judge(self, key: str, params: Mapping[str, Any], context: TrialContext | None = None) -> Judgement:
        """The judgement of one call. ``key`` is the registry's: a name for own tools, ``kind:name`` for others."""
        context = context or TrialContext()
        kind, _, foreign = key.rpartition(":")
        own = not kind
        tool = foreign or key
        if own and is_dotted(tool):
            tool = offered_name(tool)
        where = CallContext("ten_trial", "main", context.session, "run_trial", 0)
        tool_kind = ToolKind(kind) if kind in ToolKind else ToolKind.OWN_TOOL
        proposal = Proposal("call_trial", tool, tool_kind, thaw(params), where)
        in_force = self._in_force(context)
        try:
            call = normalise(proposal, self._catalogue, CallId("call_trial"), workspace=WORKSPACE)
        except NotACallError as exc:
            return self._engine.refuse(exc.call, exc.rule, exc.reason, in_force)
        if context.cwd is not None:
            call = replace(call, binding=replace(call.binding, cwd=context.cwd))
        return self._engine.weigh(call, in_force)

    def _in_force(self, context: TrialContext) -> InForce:
        view = OwnerView(
            levels={"*": context.level},
            gates={"*": context.gate},
            unlocks=(),
            domains=context.tenant_domains,
            internal_services=(),
            epoch=0,
            secret_scopes={},
            hub_session=False,
        )
        facts = TenantFacts(context.tenant_domains, context.internal_hosts)
        return InForce(Policy(self._catalogue.bundle, facts), self._catalogue, view)


def context_of(given: Mapping[str, Any]) -> TrialContext:
    """A case's context as a TrialContext. Raises BundleFormatError for a key or value that is none."""
    try:
        values = dict(given)
        for name in ("tenant_domains", "internal_hosts"):
            if name in values:
                values[name] = tuple(values[name])
        if "level" in values:
            values["level"] = AutonomyLevel(values["level"])
        if "gate" in values:
            values["gate"] = GateState(values["gate"])
        return TrialContext(**values)
    except (TypeError, ValueError) as exc:
        raise BundleFormatError("a case's context has an unknown key or value") from exc
