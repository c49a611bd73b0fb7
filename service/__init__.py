"""The service: an HTTP front, and behind it one engine per model that batches across depths."""
