"""Signed policy: what a bundle is, whether it may be taken into force, and which one is.

``bundle`` parses compiled JSON into frozen values (``shape``, ``tool_shape`` and ``params`` say what is one) ·
``signing`` says who signed the exact bytes · ``activation`` is the state machine of freshness (floor, expiry,
last-known-good) and the installed files · ``suite`` runs a bundle's own cases. Authors' YAML is compiled by the
command line.
"""

from safety_wrapper.policy.bundle import Bundle, EffectTemplate, Policy, TenantFacts, ToolEntry, parse

__all__ = ["Bundle", "EffectTemplate", "Policy", "TenantFacts", "ToolEntry", "parse"]
