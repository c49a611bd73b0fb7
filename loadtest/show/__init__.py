"""What people read: the terminal, the report, the page and its pictures."""
