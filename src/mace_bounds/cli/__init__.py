"""The command ``mace-bounds``: one file per command; heavy imports happen inside the commands."""

from mace_bounds.cli.app import app, main

__all__ = ["app", "main"]
