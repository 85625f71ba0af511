from hypothesis import settings

# Machines of continuous integration stall now and then, and a red run must be repeatable.
settings.register_profile("evomerge", deadline=None, derandomize=True)
settings.load_profile("evomerge")
