"""Signed rules, compiled once for each bundle: conditions to functions, and an index so that 1,000 rules cost a few."""

from sw_classification.rules.compiled import CompiledRule, Match, RuleSet

__all__ = ["CompiledRule", "Match", "RuleSet"]
