"""Generation on JAX: steps are jitted, and the cache's buffers are donated to them."""

import contextlib
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras

from nextword.generation.jax_program import CompileClock, Jitted, Program
from nextword.layers import TransformerLayer
from nextword.ops.native.jax_addresses import values_of
from nextword.presets.cache import cache_directory


class JaxBackend:
    """See `nextword.generation.backend.Backend`."""

    def __init__(self) -> None:
        self._clock = CompileClock()
        _keep_compiled_programs()

    @property
    def compile_seconds(self) -> float:
        """Time spent on compiling since the process started."""
        return self._clock.seconds

    def compile(
        self,
        step: Callable[..., Any],
        variables: Sequence[keras.Variable],
        donated: Sequence[str] = (),
    ) -> Callable[..., Any]:
        """Jit the step for the variables that it reads."""
        return Program(step, variables, donated, self._clock)

    def compile_for_each(
        self,
        step: Callable[..., Any],
        layers: Sequence[TransformerLayer],
        donated: Sequence[str] = (),
    ) -> list[Callable[..., Any]]:
        """Jit the step of one layer of each kind, and call it with the others' values, too."""
        jitted: dict[Hashable, Jitted] = {}
        for layer in layers:
            if layer.kind not in jitted:
                own = functools.partial(step, layer)
                arguments = layer.variables, (), donated, step.__name__, self._clock
                jitted[layer.kind] = Jitted(own, *arguments)
        return [_bound(jitted[layer.kind], layer.variables) for layer in layers]

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


def _bound(jitted: Jitted, variables: Sequence[keras.Variable]) -> Callable[..., Any]:
    """Return a step of one layer, given that of any layer like it."""
    return lambda **arguments: jitted(values_of(variables), None, **arguments)[0]


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
