"""Compiled programs are kept for the next process, and JAX's own variable comes first."""

import os
import subprocess
import sys

import jax

from endoclip_jax.training.compilation import keep_compiled

PROGRAM = """
import sys, pathlib, jax, jax.numpy as jnp
from jax import monitoring
from endoclip_jax.training.compilation import keep_compiled
events = []
monitoring.register_event_listener(lambda name, **_: events.append(name))
keep_compiled(pathlib.Path(sys.argv[1]))
jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))
print(sum(name.endswith("cache_hits") for name in events))
"""


def test_a_second_process_compiles_nothing_again(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    hits = [
        int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, tmp_path], env=environment, check=True,
                capture_output=True, text=True,
            ).stdout
        )
        for _ in range(2)
    ]  # fmt: skip
    assert hits[0] == 0 < hits[1]
    (kind,) = tmp_path.iterdir()
    assert any(kind.iterdir())


def test_the_variable_of_jax_comes_first(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    keep_compiled(tmp_path, {"JAX_COMPILATION_CACHE_DIR": "/elsewhere"})
    assert jax.config.jax_compilation_cache_dir == before
