"""What holds for every test."""

from hypothesis import HealthCheck, settings

# No test asserts how long something takes, and neither does hypothesis: the machine may be busy with other things.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")
