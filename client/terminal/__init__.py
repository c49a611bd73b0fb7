"""What the commands of the client show and read: the only part of it that needs typer and rich."""
