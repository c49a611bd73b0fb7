"""Graph reachability."""
