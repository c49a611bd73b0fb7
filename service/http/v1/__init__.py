"""Fathom's own API."""
