"""The tasks a model can be trained on: a room for each."""
