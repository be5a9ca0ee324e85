"""On-policy algorithms: the template, critics, samples and the compound ratio."""
