"""From a request's bytes to a submission, and from events back to bytes."""
