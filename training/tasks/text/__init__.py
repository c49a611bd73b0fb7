"""Kinship in relational text."""
