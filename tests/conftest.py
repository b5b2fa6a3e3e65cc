"""What holds for every test: eight fake CPU devices, parsed flags, shapes checked at boundaries."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"
# As JAX's own tests: nearly all time here is compilation, and optimising takes most of that.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # scikit-learn beside another worker

import pytest
from absl import flags
from jaxtyping import install_import_hook

install_import_hook("endoclip_jax", "typechecker.beartype")
flags.FLAGS.mark_as_parsed()  # Grain reads absl flags


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Under `-n` a file stays in one process, so that what its tests share is made once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(items):
    """The longest file first, so that it does not run alone in the end."""
    items.sort(key=lambda item: item.path.name != "test_launch.py")


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
