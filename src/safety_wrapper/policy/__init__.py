"""Signed policy: what a bundle is, whether it may be taken into force, and which one is.

``bundle`` parses compiled JSON into frozen values · ``signing`` says who signed the exact bytes · ``activation`` is
the state machine of freshness (floor, expiry, last-known-good). Authors' YAML is compiled by the command line.
"""

from safety_wrapper.policy.bundle import Bundle, EffectTemplate, Policy, TenantFacts, ToolEntry

__all__ = ["Bundle", "EffectTemplate", "Policy", "TenantFacts", "ToolEntry"]
