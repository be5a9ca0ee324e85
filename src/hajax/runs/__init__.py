"""Trainings on the host: configuration, directory, programs, health, resume, loggers, and loading of finished runs."""
