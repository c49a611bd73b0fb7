"""Who sends: client processes, what they send, and to whom."""
