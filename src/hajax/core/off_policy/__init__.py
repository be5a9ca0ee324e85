"""Off-policy algorithms: the template, joint critics and the objectives of policies."""
