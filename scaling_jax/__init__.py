"""Finetuning scaling laws: from text to runs, to a fitted law, to a report."""

__version__ = "0.2.0"
