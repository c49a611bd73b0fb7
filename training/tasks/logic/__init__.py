"""Nested boolean logic."""
