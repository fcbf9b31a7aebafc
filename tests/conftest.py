"""What every test file shares."""

from hypothesis import settings

# The first example of a property may compile a kernel; a failure must come again when run again.
settings.register_profile("fastnn", deadline=None, derandomize=True)
settings.load_profile("fastnn")
