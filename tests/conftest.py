"""What holds for every test: eight fake CPU devices, parsed flags, shapes checked at boundaries."""

import atexit
import gc
import importlib
import os
import shutil
import tempfile
from pathlib import Path

from devices import environment

os.environ.update(environment(devices=8))

# What one worker or launched process has compiled, the others need not.
if "ENDOCLIP_TEST_CACHE" not in os.environ:
    os.environ["ENDOCLIP_TEST_CACHE"] = tempfile.mkdtemp(prefix="endoclip-compiled-")
    atexit.register(shutil.rmtree, os.environ["ENDOCLIP_TEST_CACHE"], ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["ENDOCLIP_TEST_CACHE"]
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import pytest
from absl import flags
from jaxtyping import install_import_hook

# Modules that give arrays shapes: with all the others, drawing frames takes half as long again.
PACKAGE = Path(__file__).parent.parent / "endoclip_jax"
SHAPED = [
    ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )
    for path in PACKAGE.rglob("*.py")
    if "jaxtyping" in path.read_text(encoding="utf-8")
]
install_import_hook(SHAPED, "typechecker.beartype")
flags.FLAGS.mark_as_parsed()  # Grain reads absl flags
gc.set_threshold(50_000)  # tracing makes objects by the million: looking for cycles took a tenth


LIBRARIES = (
    "flax.linen grain matplotlib.pyplot ml_collections optax orbax.checkpoint PIL.Image "
    "scipy.stats sklearn.manifold torch transformers typechecker"
)


def pytest_sessionstart(session):
    """Libraries first: what is imported from a hooked module is compiled anew, not read back."""
    if session.config.getoption("dist", "no") == "no":  # where tests run: xdist's own process waits
        for name in LIBRARIES.split():
            importlib.import_module(name)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Under `-n` a file stays in one process, so that what its tests share is made once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(items):
    """The longest files first, so that none runs alone in the end."""
    names = (
        "launch jobs self_supervised launch_weights sharding tables_launch speed_suites parity "
        "unification tower_parity launch_baselines loop remat"
    )
    longest = [f"test_{name}.py" for name in names.split()]
    items.sort(key=lambda i: longest.index(i.path.name) if i.path.name in longest else len(longest))


TINY_COHORT = {"train": 40, "validation": 16, "test": 16}


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory):
    """A small embedded cohort as a records folder and a set of labelled polyps."""
    from endoclip_jax.synthetic.cohort import write_cohort

    return write_cohort(
        tmp_path_factory.mktemp("cohort"),
        seed=3,
        examinations=TINY_COHORT,
        frames_per_case=6,
        polyps=20,
        processes=1,
    )


@pytest.fixture(scope="session")
def tiny_shards(tiny_cohort, tmp_path_factory):
    """The small cohort, prepared like any hospital's records."""
    from endoclip_jax.shards.prepare import prepare

    out = tmp_path_factory.mktemp("prepared") / "shards"
    prepare(tiny_cohort / "records", out, long_side=64, workers=1, salt=b"s" * 32, progress=False)
    return out
