"""A training on the host: its configuration, directory, programs, health, resumption, loggers; and runs read back."""
