"""Benches: prompts as data, judges behind OpenAI-compatible endpoints, statistics, and one report."""
