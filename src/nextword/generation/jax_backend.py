"""Generation on JAX: steps are jitted, and the cache's buffers are donated to them."""

import contextlib
import functools
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras

from nextword._garbage import collection_paused
from nextword.layers import TransformerLayer
from nextword.presets.cache import cache_directory


class JaxBackend:
    """See `nextword.generation.backend.Backend`."""

    def __init__(self) -> None:
        self.compile_seconds = 0.0
        _keep_compiled_programs()

    def compile(
        self,
        step: Callable[..., Any],
        variables: Sequence[keras.Variable],
        donated: Sequence[str] = (),
    ) -> Callable[..., Any]:
        """Jit the step with the variables' values as an argument."""
        return _bound(self._jitted(step, step.__name__, variables, donated), variables)

    def compile_for_each(
        self,
        step: Callable[..., Any],
        layers: Sequence[TransformerLayer],
        donated: Sequence[str] = (),
    ) -> list[Callable[..., Any]]:
        """Jit the step of one layer of each kind, and call it with the others' values, too."""
        jitted: dict[Hashable, Any] = {}
        for layer in layers:
            if layer.kind not in jitted:
                own = functools.partial(step, layer)
                jitted[layer.kind] = self._jitted(own, step.__name__, layer.variables, donated)
        return [_bound(jitted[layer.kind], layer.variables) for layer in layers]

    def _jitted(
        self,
        step: Callable[..., Any],
        name: str,
        variables: Sequence[keras.Variable],
        donated: Sequence[str],
    ) -> Callable[..., Any]:
        """Return the step as a function of its own arguments and the variables' `values`."""
        tracing = contextlib.ExitStack()
        is_tracing = False

        def stateless_step(values: list[Any], **arguments: Any) -> Any:
            nonlocal is_tracing
            is_tracing = True
            tracing.enter_context(collection_paused())
            with keras.StatelessScope(zip(variables, values, strict=True)):
                return step(**arguments)

        stateless_step.__name__ = name
        compiled = jax.jit(stateless_step, donate_argnames=tuple(donated))

        def run(**arguments: Any) -> Any:
            nonlocal is_tracing
            is_tracing, started = False, time.perf_counter()
            with tracing:
                results = compiled(**arguments)
            if is_tracing:  # The call only dispatches the work, so its time is that of compiling.
                self.compile_seconds += time.perf_counter() - started
            return results

        return run

    def write_block(self, buffer: Any, block: Any, row: Any, start: Any) -> Any:
        """Update a slice, in place where the buffer is donated."""
        return jax.lax.dynamic_update_slice(buffer, block, (row, 0, start, 0))

    def write_tokens(self, buffer: Any, tokens: Any, positions: Any) -> Any:
        """Update some positions of every row, in place where the buffer is donated."""
        rows, length = buffer.shape[0], tokens.shape[2]
        if rows == 1:  # a scatter of one is slower
            return self.write_block(buffer, tokens, 0, positions[0])
        indices = positions[:, None] + jnp.arange(length)
        return buffer.at[jnp.arange(rows)[:, None], :, indices].set(
            jnp.swapaxes(tokens, 1, 2), unique_indices=True, mode="promise_in_bounds"
        )

    def top_k(self, scores: Any, k: int) -> tuple[Any, Any]:
        """Select by `jax.lax.top_k`, which keeps the order of equal scores."""
        return jax.lax.top_k(scores, k)


def _bound(program: Callable[..., Any], variables: Sequence[keras.Variable]) -> Callable[..., Any]:
    """Return a program that reads the values of variables at each call."""
    return lambda **arguments: program(values=[v.value for v in variables], **arguments)


def _keep_compiled_programs() -> None:
    """Let JAX keep compiled programs on disk, so that the next process need not compile them.

    A directory that the user has chosen (`JAX_COMPILATION_CACHE_DIR`) stays, and where nothing can
    be written programs are compiled anew.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    directory = cache_directory() / "compiled"
    with contextlib.suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)


BACKEND = JaxBackend()
