"""Count traces and compilations of JAX."""

import contextlib

import jax


@contextlib.contextmanager
def counted(event):
    """Yield a list that grows with every event such as "jaxpr_trace" or "backend_compile"."""
    events, inside = [], True

    def note(name, seconds, **_):
        if inside and name.endswith(f"{event}_duration"):
            events.append(name)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield events
    inside = False
