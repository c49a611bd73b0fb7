"""The experiments of the paper: presets, replications, tables. Nothing else needs this package."""
