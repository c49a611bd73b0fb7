"""The tasks a model can be trained on: one file, or one family of files, each."""
