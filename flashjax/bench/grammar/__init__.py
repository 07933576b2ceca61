"""Benches written by a grammar: the same prompts for a seed, each with the facts that can be checked in its picture."""

from flashjax.bench.grammar.benches import describe, editing_bench, handwritten, t2i_bench

__all__ = ["describe", "editing_bench", "handwritten", "t2i_bench"]
